"""Where the cluster lives: namespaces with the bridge between the nodes, a disk, the programs.

    keeper                  outside, in the machine's own namespaces: removes the cgroups in the end
    `- first process        of a PID namespace, waits for the end of its input
       |- etcd, kube-apiserver, ...
       `- each node         in a PID namespace of its own

The other end of that input is the test's process. When that closes the cluster, or is killed, the
first process ends, the kernel ends all others, and with them go the namespaces, mounts and files.
What the machine has itself, a cgroup, the keeper removes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.cgroups import ROOT, UNIFIED
from tests.kube.cgroups import MOUNT, Cgroup, hierarchies
from tests.lab.space import ROOT as CHECKED_OUT
from tests.lab.space import Space
from tests.lab.underlay import NETWORK

if TYPE_CHECKING:
    from pathlib import Path

BIN, CHECKOUT = "/mnt/bin", "/mnt/checkout"

_WEIGHT = 8  # of the whole cluster, beside a process

# Waits for the end of its input. Orphans that end are its children: the kernel takes them away.
FIRST_PROCESS = "exec env --ignore-signal=CHLD cat >/dev/null"

# Arguments: the folder of the programs, the checkout.
# /mnt is what all spaces of the cluster share; the two folders may lie below it.
_SETUP = f"""
set -e
mount -t tmpfs -o mode=755 cluster /run
mkdir /run/bin /run/checkout /run/netns /run/nodes /run/pki /run/etcd
mount --bind "$0" /run/bin
mount --bind "$1" /run/checkout
mount -o remount,bind,ro /run/bin
mount -o remount,bind,ro /run/checkout
mount --rbind /run /mnt
umount -R -l /sys
mount -t sysfs -o ro cluster /sys
{NETWORK}
echo ready
{FIRST_PROCESS}
"""

# Arguments: the name of the cgroup, the hierarchies, --, the command of the first process.
_KEEPER = f"""
name=$1
shift
words=
while [ "$1" != -- ]; do words="$words $1"; shift; done
shift
mount_cgroups() {{
{MOUNT}
}}
mount_cgroups $words || exit 1
folders=
for word in $words; do
    [ $word = {UNIFIED} ] && folder={ROOT}/$name || folder={ROOT}/$word/$name
    mkdir $folder || exit 1
    folders="$folders $folder"
done
exec 3<&0
"$@" <&3 &
exec 3<&-
wait $!
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    find $folders -depth -type d -exec rmdir {{}} + 2>/dev/null
    ls -d $folders >/dev/null 2>&1 || break
    sleep 0.1
done
"""


class Underlay(Space):
    """The namespaces of the cluster, and its cgroup; paths below /mnt are every node's too."""

    def __init__(self, programs: Path) -> None:
        name = f"cni-flannel-{os.getpid()}-{id(self):x}"
        own = ("unshare", "--mount", "--propagation", "private")
        keeper = (*own, "sh", "-c", _KEEPER, "keeper", name, *hierarchies(), "--")
        unshare = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child")
        init = (*unshare, "--mount-proc", "sh", "-c", _SETUP, str(programs), str(CHECKED_OUT))
        super().__init__("the underlay", [*keeper, *init])
        self.keeper = self._holder.pid
        self.cgroup = Cgroup(name, self.keeper)
        self.cgroup.make(_WEIGHT)
        leaf = self.cgroup.below("init")
        leaf.make()
        self.enter = (*leaf.join(), *self.nsenter)
