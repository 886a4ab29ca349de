"""Steps on the node: the bridge, its address, forwarding.  Shared by all pods, never undone.

Imports: errno, os, ``netlink``, the protocol package.
"""

from __future__ import annotations

import errno
import os

from cni.attachment import BRIDGE_ALIAS
from cni.errors import KERNEL_REFUSED, CNIError
from cni_flannel.bridge.ends import port_mac, random_mac
from cni_flannel.bridge.steps import REMEDY, VLAN_FILTERING, Step
from netlink import rtnl, sysctl
from netlink.nlmsg import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.cidr import Prefix
    from cni_flannel.bridge.ends import Ends


class Switch(Step):
    """Set one of the kernel's switches on the host.

    ``like`` is another one that tells how this one will be, while its link is not there.
    """

    __slots__ = ("like", "path", "value")
    remedy = (
        "set it on the host, or give the plugin a /proc/sys that it may write: a container needs "
        "privileged: true, and no read-only mount of /proc/sys"
    )

    def __init__(self, path: str, value: str, like: str = "") -> None:
        self.path = path
        self.value = value
        self.like = like or path

    def describe(self) -> list[str]:
        return [f"sysctl -w {self.path}={self.value}"]

    def require(self) -> None:
        present = sysctl.read(self.like)
        if present not in (None, self.value) and not sysctl.is_writable(self.like):
            raise CNIError(
                KERNEL_REFUSED,
                f"{self.like} is {present} and {self.path} cannot be set to {self.value}: "
                "/proc/sys is read-only, or not for this user",
                self.remedy,
            )

    def apply(self, ends: Ends) -> None:
        del ends
        if not sysctl.write(self.path, self.value):
            raise FileNotFoundError(errno.ENOENT, "no such switch", f"/proc/sys/{self.path}")


class AddBridge(Step):
    """Make the bridge, up, marked as ours and with a MAC of its own from the first moment."""

    __slots__ = ("mac", "mtu", "name", "no_dad", "promisc", "remedy", "vlan_filtering")

    def __init__(
        self,
        name: str,
        mac: str,
        mtu: int,
        *,
        promisc: bool,
        vlan_filtering: bool,
        no_dad: bool = False,
    ) -> None:
        self.name = name
        self.no_dad = no_dad
        self.mac = mac
        self.mtu = mtu
        self.promisc = promisc
        self.vlan_filtering = vlan_filtering
        self.remedy = VLAN_FILTERING if vlan_filtering else REMEDY

    def describe(self) -> list[str]:
        filtering = " vlan_filtering 1" if self.vlan_filtering else ""
        return [
            f"ip link add {self.name} up address {self.mac} type bridge{filtering}",
            f"ip link set {self.name} alias {BRIDGE_ALIAS}",
            *([f"ip link set {self.name} promisc on"] if self.promisc else []),
            *([f"ip link set {self.name} mtu {self.mtu}"] if self.mtu else []),
            f"sysctl -w net/ipv6/conf/{self.name}/accept_ra=0",
            *([f"sysctl -w net/ipv6/conf/{self.name}/accept_dad=0"] if self.no_dad else []),
        ]

    def apply(self, ends: Ends) -> None:
        new = rtnl.new_bridge(self.name, mac=self.mac, vlan_filtering=self.vlan_filtering)
        # Given at creation the MTU would follow the ports'; only a change of it counts as chosen.
        chosen = rtnl.set_link(
            self.name, alias=BRIDGE_ALIAS, promisc=self.promisc or None, mtu=self.mtu or None
        )
        ends.host.execute(new, chosen)
        ends.wish(f"net/ipv6/conf/{self.name}/accept_ra", "0")
        if self.no_dad:
            # For a packet from another node, pods are asked for by the link-local address, and not
            # while it is tentative: two seconds from the first port on (ndisc_solicit, ndisc.c).
            ends.wish(f"net/ipv6/conf/{self.name}/accept_dad", "0")


class RepairBridge(Step):
    """Bring a bridge that exists back to what the configuration says; ``mark`` it as ours.

    With the mark goes the MAC that the bridge has: set explicitly, it stays when ports come and go
    (a bridge that somebody made without one takes the lowest of its ports').
    """

    __slots__ = ("mark", "mtu", "name", "no_ra", "promisc", "up")

    def __init__(
        self,
        name: str,
        *,
        up: bool,
        mtu: int = 0,
        promisc: bool = False,
        no_ra: bool = False,
        mark: str = "",
    ) -> None:
        self.name = name
        self.mark = mark
        self.no_ra = no_ra
        self.up = up
        self.mtu = mtu
        self.promisc = promisc

    def describe(self) -> list[str]:
        words = ["up"] if self.up else []
        words += [f"mtu {self.mtu}"] if self.mtu else []
        words += ["promisc on"] if self.promisc else []
        words += [f"alias {BRIDGE_ALIAS} address {self.mark}"] if self.mark else []
        switch = [f"sysctl -w net/ipv6/conf/{self.name}/accept_ra=0"] if self.no_ra else []
        return [*([f"ip link set {self.name} {' '.join(words)}"] if words else []), *switch]

    def apply(self, ends: Ends) -> None:
        if self.no_ra:
            # A pod could route the host's traffic through itself (CVE-2020-10749).
            ends.wish(f"net/ipv6/conf/{self.name}/accept_ra", "0")
        if not (self.up or self.mtu or self.promisc or self.mark):
            return
        link = ends.host.get_link(self.name)
        if link is None:
            raise NetlinkError(errno.ENODEV, self.name)
        change = rtnl.set_link(
            link.index,
            up=self.up or None,
            mtu=self.mtu or None,
            promisc=self.promisc or None,
            alias=BRIDGE_ALIAS if self.mark else None,
            # Its MAC of now: another bridge may have got the name since the plan was made.
            mac=link.mac if self.mark else None,
        )
        ends.host.execute(change)


class AddGatewayVeth(Step):
    """Make the pair through which the host takes part in a VLAN of the bridge."""

    __slots__ = ("bridge", "holder", "mtu", "port")
    remedy = VLAN_FILTERING

    def __init__(self, bridge: str, holder: str, port: str, mtu: int) -> None:
        self.bridge = bridge
        self.holder = holder
        self.port = port
        self.mtu = mtu

    def describe(self) -> list[str]:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        pair = f"{self.port} up{mtu} master {self.bridge} type veth peer name {self.holder}"
        return [
            f"ip link add {pair}",
            f"ip link set {self.holder} up",
            f"ip link set {self.port} alias {BRIDGE_ALIAS}",
        ]

    def apply(self, ends: Ends) -> None:
        messages = (
            rtnl.new_veth(
                self.port,
                mac=port_mac(os.urandom(6)),
                mtu=self.mtu or None,
                master=ends.host_index(self.bridge),
                peer_name=self.holder,
                peer_mac=random_mac(),
            ),
            rtnl.set_link(self.holder, up=True),
            rtnl.set_link(self.port, alias=BRIDGE_ALIAS),
        )
        try:
            ends.host.execute(*messages)
        except NetlinkError as error:
            # Another ADD was faster if all that is wrong is that the pair is there.
            if error.errno != errno.EEXIST or error.also:
                raise


class MoveAddress(Step):
    """Give a host link its gateway address, after taking away the ones in its way."""

    __slots__ = ("link", "prefix", "stale")

    def __init__(self, link: str, prefix: Prefix, stale: Sequence[Prefix]) -> None:
        self.link = link
        self.prefix = prefix
        self.stale = list(stale)

    def describe(self) -> list[str]:
        return [
            *(f"ip address del {stale} dev {self.link}" for stale in self.stale),
            f"ip address replace {self.prefix} dev {self.link}",
        ]

    def apply(self, ends: Ends) -> None:
        index = ends.host_index(self.link)
        for stale in self.stale:
            ends.drop(rtnl.del_address(index, stale))
        ends.host.execute(rtnl.new_address(index, self.prefix, nodad=True, replace=True))
