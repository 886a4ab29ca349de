"""A machine of the cluster: namespaces of its own, a disk that outlives a reboot, no harm outside.

It sees this machine's programs, read-only. /etc and /opt are overlays, /var/lib and /var/log its
own; all that it writes there lies below `disk`. Sysctls that belong to the whole kernel are
read-only, and those that kubelet insists on are files of its own.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.kube.cgroups import LEAF, MOUNT, hierarchies
from tests.kube.underlay import FIRST_PROCESS
from tests.lab.space import Space
from tests.lab.underlay import GATEWAY, GATEWAY6

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kube.underlay import Underlay

# What kubelet writes at its start, below /proc/sys.
_TUNABLES = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

# Arguments: the machine's name, what `hierarchies` gives.
_SETUP = f"""
set -e
hostname "$0"
disk=/mnt/nodes/$0
mkdir -p $disk/etc $disk/opt $disk/lib $disk/log $disk/work/etc $disk/work/opt
for name in etc opt; do
    layers=lowerdir=/$name,upperdir=$disk/$name,workdir=$disk/work/$name
    mount -t overlay -o $layers $0 /$name
done
mount --bind $disk/lib /var/lib
mount --bind $disk/log /var/log
mount -t tmpfs -o mode=755 $0 /run
mkdir -p /run/netns /run/lock /run/tmp /run/sysctl
mount -t proc $0 /proc
umount -R -l /sys
mount -t sysfs -o ro $0 /sys
{MOUNT}
{LEAF}
for file in {" ".join(_TUNABLES)}; do
    copy=/run/sysctl/${{file##*/}}
    cat /proc/sys/$file >$copy
done
for folder in kernel vm fs; do
    mount --bind /proc/sys/$folder /proc/sys/$folder
    mount -o remount,bind,ro /proc/sys/$folder
done
for file in {" ".join(_TUNABLES)}; do
    mount --bind /run/sysctl/${{file##*/}} /proc/sys/$file
done
mount -o remount,bind,ro /
mount --make-rshared /
ip link set lo up
echo ready
{FIRST_PROCESS}
"""


class Machine(Space):
    """A machine with one interface, eth0, on the underlay."""

    def __init__(self, underlay: Underlay, number: int) -> None:
        self.underlay, self.number = underlay, number
        self.address, self.address6 = f"192.168.64.{number}", f"fd00:64::{number:x}"
        self._port = f"port{number}"
        self.boot()

    def boot(self) -> None:
        """Make its namespaces; what is on its disk is there."""
        name = f"node{self.number}"
        self.cgroup = self.underlay.cgroup.below(name)
        self.cgroup.make()
        unshare = ("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork")
        options = ("--kill-child", "--propagation", "private")
        setup = ("sh", "-c", _SETUP, name, *hierarchies())
        namespaces = ("net", "mount", "uts", "ipc", "pid", "cgroup")
        super().__init__(
            name,
            [*self.cgroup.join(), *self.underlay.nsenter, *unshare, *options, *setup],
            namespaces=namespaces,
        )
        self.enter = (*self.cgroup.below("init").join(), *self.nsenter)
        self._plug()

    def _plug(self) -> None:
        """Put eth0 on the bridge."""
        # The number of the process is one that is valid out here, not in the underlay.
        peer = ("peer", "name", "eth0", "netns", str(self.pid))
        self._ip("link", "add", self._port, "type", "veth", *peer)
        self._ip("link", "set", self._port, "master", "underlay", "up")
        # An uplink has its link-local address long before there are pods: nobody waits for DAD.
        self.sh(f"""
            sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            sysctl -qw net.ipv6.conf.eth0.accept_dad=0
            ip address add {self.address}/24 dev eth0
            ip address add {self.address6}/64 dev eth0 nodad
            ip link set eth0 up
            ip route add default via {GATEWAY}
            ip route add default via {GATEWAY6}
        """)

    def shut_down(self) -> None:
        """Switch it off: every process ends at once, and what is not on its disk is lost."""
        self._ip("link", "delete", self._port)  # the kernel takes its time to do so itself
        self.close()
        self.cgroup.remove()

    def _ip(self, *argv: str) -> None:
        net = f"--net={self.underlay.netns}"
        subprocess.run(["nsenter", net, "ip", *argv], check=True)

    @property
    def disk(self) -> Path:
        """The folder of what it has written to its disk."""
        return self.underlay.path(f"/mnt/nodes/{self.name}")
