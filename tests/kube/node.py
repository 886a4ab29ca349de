"""A node: a machine with containerd, kubelet and kube-proxy, each with a log in /run/log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.kube.control import PODS, SERVER, by_family
from tests.kube.images import PAUSE, archives
from tests.kube.machine import Machine
from tests.kube.underlay import BIN
from tests.lab.space import LabError

if TYPE_CHECKING:
    from tests.kube.pki import Authority
    from tests.kube.underlay import Underlay
    from tests.lab.space import Process

CNI_BIN, CNI_CONF = "/opt/cni/bin", "/etc/cni/net.d"
SOCKET = "/run/containerd/containerd.sock"
_GATES = {"IPv6DualStack": True}

_CONTAINERD = f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_BIN}"
conf_dir = "{CNI_CONF}"
"""


class Node(Machine):
    """A machine that joins the cluster when its programs are started."""

    def __init__(
        self, underlay: Underlay, number: int, authority: Authority, families: str
    ) -> None:
        self.processes: dict[str, Process] = {}
        self._authority, self._families = authority, families
        super().__init__(underlay, number)
        self._configure()

    def start_programs(self) -> None:
        """Start its programs, as at a machine's boot. LabError with the log of one that fails."""
        self.path("/run/log").mkdir(exist_ok=True)
        self._start("containerd", "containerd", "--config", "/etc/containerd.toml")
        self.ctr("version")  # a client waits for the socket to come up
        for archive in archives():
            self.import_image(archive)
        kubeconfig = self._authority.path(f"{self.name}.conf")
        self._start(
            "kubelet",
            *(f"{BIN}/kubelet", "--config=/etc/kubelet.json", f"--kubeconfig={kubeconfig}"),
            *("--container-runtime=remote", f"--container-runtime-endpoint=unix://{SOCKET}"),
            *("--root-dir=/var/lib/kubelet", f"--hostname-override={self.name}"),
            f"--node-ip={self.address}",
        )
        self._start("kube-proxy", f"{BIN}/kube-proxy", "--config=/etc/kube-proxy.json")

    def start_daemon(self, *argv: str) -> None:
        """Start flanneld as one more program of the node."""
        self._start("flanneld", *argv)

    def reboot(self) -> None:
        """Switch it off and on again; its programs are not started."""
        self.shut_down()
        self.processes.clear()
        self.boot()

    def log(self, program: str) -> str:
        """Give what a program has written since the boot."""
        return self.path(f"/run/log/{program}.log").read_text(errors="replace")

    def ctr(self, *argv: str) -> str:
        """Call containerd's client for Kubernetes' containers."""
        return self.run("ctr", "--address", SOCKET, "--namespace", "k8s.io", *argv).stdout

    def import_image(self, archive: bytes) -> None:
        """Import an OCI archive's images, so that no pod has to pull them."""
        self.path("/run/tmp/image.tar").write_bytes(archive)
        self.ctr("images", "import", "/run/tmp/image.tar")
        self.path("/run/tmp/image.tar").unlink()

    def netns_of(self, container: str) -> str:
        """Give the path, on the node, of a running container's network namespace. LabError."""
        for line in self.ctr("tasks", "ls").splitlines():
            name, pid, *_ = line.split()
            if name == container:
                return f"/proc/{pid}/ns/net"
        raise LabError(f"{self.name}: container {container} does not run")

    def traces(self) -> dict[str, Any]:
        """Read what the network of pods could leave here; kube-proxy's own rules are left out.

        kubelet takes away dead containers once a minute, so that they are no sign of anything.
        """
        rules = self.run("iptables-save").stdout.splitlines()
        files = (file for file in self.path("/var/lib/cni").rglob("*") if file.is_file())
        return {
            "tasks": self.ctr("tasks", "ls", "--quiet").split(),
            "namespaces": sorted(file.name for file in self.path("/run/netns").iterdir()),
            "links": [link["ifname"] for link in self.ip("link")],
            "files": sorted(file.name for file in files),
            "rules": [line for line in rules if line.startswith("-") and "KUBE-" not in line],
            "cgroups": sorted(self.cgroup.names()),
        }

    def write(self, path: str, content: str | dict[str, Any]) -> None:
        """Write a file by rename, as JSON if it is no text."""
        text = content if isinstance(content, str) else json.dumps(content, indent=1)
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / f".{file.name}").write_text(text)
        (file.parent / f".{file.name}").rename(file)

    def _start(self, program: str, *argv: str) -> None:
        log = f"/run/log/{program}.log"
        # kubelet would look for five seconds for the cloud that it might be in.
        environ = {"TMPDIR": "/run/tmp", "AWS_EC2_METADATA_DISABLED": "true"}
        self.processes[program] = self.start(*argv, log=log, env=environ)

    def _configure(self) -> None:
        names = f"DNS:{self.name}", f"IP:{self.address}", f"IP:{self.address6}"
        subject = f"/O=system:nodes/CN=system:node:{self.name}"
        self._authority.kubeconfig(self.name, SERVER, subject, *names)
        # What this machine has there is not the cluster's.
        self.sh(f"rm -rf /etc/cni /opt/cni; mkdir -p {CNI_CONF} {CNI_BIN}")
        self.write("/etc/containerd.toml", _CONTAINERD)
        self.write("/etc/kubelet.json", self._kubelet())
        self.write("/etc/kube-proxy.json", self._kube_proxy())

    def _kubelet(self) -> dict[str, Any]:
        path = self._authority.path
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": path("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": path(f"{self.name}.crt"),
            "tlsPrivateKeyFile": path(f"{self.name}.key"),
            "featureGates": _GATES,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "resolvConf": "",
            "volumePluginDir": "/var/lib/kubelet/plugins",
            # What the machine lacks is not what is tested.
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            # A person and a test wait for what a node says.
            "nodeStatusUpdateFrequency": "1s",
            "syncFrequency": "5s",
        }

    def _kube_proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self._authority.path("proxy.conf")},
            "hostnameOverride": self.name,
            "clusterCIDR": by_family(PODS, self._families),
            "featureGates": _GATES,
            "mode": "iptables",
            # The tables of connections are the whole machine's.
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
