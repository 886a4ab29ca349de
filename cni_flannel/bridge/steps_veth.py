"""The step that makes an attachment's veth pair, and takes it back.

Imports: errno, ``netlink``, the protocol package.
"""

from __future__ import annotations

import errno

from cni import errors
from cni.attachment import BRIDGE_ALIAS
from cni.errors import CNIError
from cni_flannel.bridge.steps import Step
from netlink import rtnl
from netlink.nlmsg import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.attachment import Attachment
    from cni_flannel.bridge.ends import Ends
    from netlink.link import Link

MAX_PORTS = 1023  # the kernel numbers them with 10 bits, from 1 on (BR_MAX_PORTS)


def no_room(bridge: str) -> CNIError:
    """The error for one port too many."""
    return CNIError(
        errors.KERNEL_REFUSED,
        f"bridge {bridge} has {MAX_PORTS} ports, and the kernel allows a bridge no more",
        "delete pods of this node, or let it have fewer (the kubelet's maxPods); a second network "
        "may have a 'bridge' of its own",
    )


class AddVeth(Step):
    """Make the veth pair: the host's end a port of the bridge, up; the other inside the pod.

    Both ends have their MAC from the first moment, and the host's is no other call's: so ``undo``
    takes back what this step made, and nothing of another ADD.  The alias in the same send proves
    the pair ours; it says "adding" until the last step of the ADD.  Only with it does the link
    become a port and come up: without, a DEL in the same pod would take it for Go's.
    ``bridge`` is in the end as it is with its new port; ``is_lost`` says that somebody else took
    the link away.
    """

    __slots__ = (
        "attachment",
        "bridge",
        "flags",
        "host_mac",
        "is_lost",
        "is_whole",
        "made",
        "mtu",
        "name",
        "pod_mac",
    )
    is_batch = True

    def __init__(
        self,
        attachment: Attachment,
        name: str,
        *,
        bridge: Link,
        host_mac: str,
        pod_mac: str,
        mtu: int,
        flags: tuple[bool, bool],
    ) -> None:
        self.attachment = attachment
        self.name = name
        self.bridge = bridge
        self.host_mac = host_mac
        self.pod_mac = pod_mac
        self.mtu = mtu
        self.flags = flags
        self.made = self.is_whole = self.is_lost = False

    def describe(self) -> list[str]:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        hairpin, isolated = ("on" if flag else "off" for flag in self.flags)
        flags = f"ip link set {self.name} type bridge_slave hairpin {hairpin} isolated {isolated}"
        peer = f"peer name {self.attachment.ifname} address {self.pod_mac}{mtu} netns POD"
        alias = f"alias '{self.attachment.alias(adding=True)}'"
        return [
            f"ip link add {self.name} address {self.host_mac}{mtu} type veth {peer}",
            f"ip link set {self.name} {alias} master {self.bridge.name} up",
            *([flags] if any(self.flags) else []),
        ]

    def apply(self, ends: Ends) -> None:
        if ends.host.get_link(self.name) is not None:
            # The rest of the batch goes by name: it must not mark a link that is there already.
            raise self._second()
        self.made = True
        try:
            self._make(ends)
        except NetlinkError as error:
            self.made = error.position != 0
            if error.errno == errno.EEXIST and not self.made:
                raise self._second() from error
            if error.errno == errno.EXFULL:
                raise no_room(self.bridge.name) from error
            raise
        self.is_whole = True
        ends.wish(f"net/ipv6/conf/{self.name}/accept_ra", "0")
        if self.bridge.alias != BRIDGE_ALIAS:
            # The host's may have followed its new port, with its MAC and its MTU.
            self.bridge = ends.host.get_link(self.bridge.index) or self.bridge

    def _make(self, ends: Ends) -> None:
        hairpin, isolated = self.flags
        port = rtnl.set_port(self.name, hairpin=hairpin, isolated=isolated)
        ends.host.execute(
            rtnl.new_veth(
                self.name,
                mac=self.host_mac,
                mtu=self.mtu or None,
                up=False,
                peer_name=self.attachment.ifname,
                peer_mac=self.pod_mac,
                peer_netns_fd=ends.netns_fd,
            ),
            rtnl.set_link(
                self.name,
                alias=self.attachment.alias(adding=True),
                master=self.bridge.index,
                up=True,
            ),
            *([port] if any(self.flags) else []),
        )

    def _second(self) -> CNIError:
        return CNIError(
            errors.TRY_AGAIN_LATER,
            f"make host veth {self.name} and {self.attachment.ifname}: one of them exists already",
            "another ADD of the same attachment is at work: this one can be repeated",
        )

    def undo(self, ends: Ends) -> None:
        if not self.made:
            return
        found = ends.host.get_link(self.name)
        if found is not None and found.mac == self.host_mac:
            ends.drop(rtnl.del_link(found.index))
        else:
            self.is_lost = self.is_whole
