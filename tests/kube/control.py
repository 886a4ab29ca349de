"""The control plane: etcd, the API server, the controllers and the scheduler, on the underlay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.flanneld.etcdserver import EtcdServer
from tests.kube.kubectl import Kubectl
from tests.kube.pki import Authority
from tests.kube.underlay import BIN
from tests.lab.space import LabError, until
from tests.lab.underlay import GATEWAY, GATEWAY6

if TYPE_CHECKING:
    from tests.kube.underlay import Underlay
    from tests.lab.space import Process

SERVER = f"https://{GATEWAY}:6443"
PODS = {4: "10.244.0.0/16", 6: "fd00:f1::/48"}
SERVICES = {4: "10.96.0.0/16", 6: "fd00:96::/112"}
_API_SERVICE = ("10.96.0.1", "fd00:96::1")
_GATES = "IPv6DualStack=true,BoundServiceAccountTokenVolume=true"


def by_family(networks: dict[int, str], families: str) -> str:
    """Join the networks of "4" or "46" as Kubernetes' flags want them."""
    return ",".join(networks[int(family)] for family in families)


class ControlPlane:
    """Programs with a log each, /run/log/PROGRAM.log; `kubectl` is the administrator's."""

    def __init__(self, underlay: Underlay, families: str) -> None:
        self._underlay, self._families = underlay, families
        self.processes: dict[str, Process] = {}
        folder = underlay.path("/run/etcd")
        enter = (*underlay.cgroup.below("init").join(), "nsenter", f"--net={underlay.netns}", "--")
        self.etcd = EtcdServer(folder, ports=(2379, 2380), host=GATEWAY, enter=enter)
        self.authority = Authority(underlay.path("/run/pki"), "/mnt/pki")
        self._certify()
        self.kubectl = Kubectl(underlay, self.authority.path("admin.conf"))

    def start(self) -> None:
        """Start all of it and wait until the API server is ready. LabError."""
        self.etcd.start()
        self.start_api_server()
        self._start(
            "kube-controller-manager",
            *(f"--kubeconfig={self.authority.path('controllers.conf')}", "--leader-elect=false"),
            *("--allocate-node-cidrs", f"--cluster-cidr={by_family(PODS, self._families)}"),
            f"--service-cluster-ip-range={by_family(SERVICES, self._families)}",
            f"--service-account-private-key-file={self.authority.path('tokens.key')}",
            f"--root-ca-file={self.authority.path('ca.crt')}",
            *("--use-service-account-credentials", f"--feature-gates={_GATES}"),
            f"--cluster-signing-cert-file={self.authority.path('ca.crt')}",
            f"--cluster-signing-key-file={self.authority.path('ca.key')}",
        )
        self._start(
            "kube-scheduler",
            *(f"--kubeconfig={self.authority.path('scheduler.conf')}", "--leader-elect=false"),
        )

    def start_api_server(self) -> None:
        """Start the API server and wait until it is ready. LabError with its log."""
        path = self.authority.path
        self._start(
            "kube-apiserver",
            *("--secure-port=6443", f"--advertise-address={GATEWAY}"),
            f"--etcd-servers={self.etcd.url}",
            f"--service-cluster-ip-range={by_family(SERVICES, self._families)}",
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
            *("--allow-privileged", f"--feature-gates={_GATES}"),
            f"--client-ca-file={path('ca.crt')}",
            f"--tls-cert-file={path('server.crt')}",
            f"--tls-private-key-file={path('server.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={path('tokens.pub')}",
            f"--service-account-signing-key-file={path('tokens.key')}",
            f"--kubelet-certificate-authority={path('ca.crt')}",
            f"--kubelet-client-certificate={path('server.crt')}",
            f"--kubelet-client-key={path('server.key')}",
            "--kubelet-preferred-address-types=InternalIP",
        )
        until("the API server is ready", self._is_ready, patience_s=180, pause_s=0.05)

    def stop(self) -> None:
        """End etcd, which is outside of the cluster's PID namespace; the rest ends with that."""
        self.etcd.stop()

    def log(self, program: str) -> str:
        """Give what a program of the control plane has written."""
        return self._underlay.path(f"/run/log/{program}.log").read_text()

    def _start(self, program: str, *flags: str) -> None:
        self._underlay.path("/run/log").mkdir(exist_ok=True)
        started = self._underlay.start(f"{BIN}/{program}", *flags, log=f"/run/log/{program}.log")
        self.processes[program] = started

    def _certify(self) -> None:
        names = [f"IP:{address}" for address in (GATEWAY, GATEWAY6, *_API_SERVICE)]
        names += [f"DNS:kubernetes.default{end}" for end in ("", ".svc", ".svc.cluster.local")]
        self.authority.issue("server", "/O=system:masters/CN=kube-apiserver", *names)
        self.authority.sign_tokens("tokens")
        self.authority.kubeconfig("admin", SERVER, "/O=system:masters/CN=admin")
        self.authority.kubeconfig("scheduler", SERVER, "/CN=system:kube-scheduler")
        self.authority.kubeconfig("controllers", SERVER, "/CN=system:kube-controller-manager")
        self.authority.kubeconfig("proxy", SERVER, "/CN=system:kube-proxy")

    def _is_ready(self) -> bool:
        if not self.processes["kube-apiserver"].is_running:
            raise LabError(f"kube-apiserver has ended:\n{self.log('kube-apiserver')[-3000:]}")
        return self.kubectl.run("get", "--raw", "/readyz", check=False).status == 0
