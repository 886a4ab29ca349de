"""Steps on one attachment: the veth pair, the pod's interface.  Each can be undone.

Imports: errno, ``netlink``, the protocol package.
"""

from __future__ import annotations

import errno

from cni import errors
from cni.attachment import BRIDGE_ALIAS
from cni.errors import CNIError
from cni_flannel.bridge.layer3 import USUAL_PRIORITY
from cni_flannel.bridge.steps import Step
from netlink import rtnl, sysctl
from netlink.nlmsg import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.attachment import Attachment
    from cni.cidr import Address, Prefix
    from cni_flannel.bridge.ends import Ends
    from cni_flannel.bridge.layer3 import Route
    from netlink.link import Link
    from netlink.nlmsg import Message


_ROUTES_IN_A_ROW = 16
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

    Both ends have their MAC from the first moment.  The alias in the same send proves the pair
    ours; it says "adding" until the last step of the ADD.  ``made`` tells ``undo`` whether it was
    this step that made it: of two ADDs at once the second must not take back the first's.
    ``bridge`` is in the end as it is with its new port.
    """

    __slots__ = ("attachment", "bridge", "flags", "host_mac", "made", "mtu", "name", "pod_mac")
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
        self.made = False

    def describe(self) -> list[str]:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        hairpin, isolated = ("on" if flag else "off" for flag in self.flags)
        flags = f"ip link set {self.name} type bridge_slave hairpin {hairpin} isolated {isolated}"
        own = f"{self.name} up address {self.host_mac}{mtu}"
        peer = f"peer name {self.attachment.ifname} address {self.pod_mac}{mtu} netns POD"
        return [
            f"ip link add {own} master {self.bridge.name} type veth {peer}",
            f"ip link set {self.name} alias '{self.attachment.alias(adding=True)}'",
            *([flags] if any(self.flags) else []),
        ]

    def apply(self, ends: Ends) -> None:
        if ends.host.get_link(self.name) is not None:
            # The rest of the batch goes by name: it must not mark a link that is there already.
            raise NetlinkError(errno.EEXIST, f"{self.name} appeared meanwhile")
        self.made = True
        try:
            self._make(ends)
        except NetlinkError as error:
            self.made = (error.errno, error.position) != (errno.EEXIST, 0)
            if error.errno == errno.EXFULL:
                raise no_room(self.bridge.name) from error
            raise
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
                master=self.bridge.index,
                peer_name=self.attachment.ifname,
                peer_mac=self.pod_mac,
                peer_netns_fd=ends.netns_fd,
            ),
            rtnl.set_link(self.name, alias=self.attachment.alias(adding=True)),
            *([port] if any(self.flags) else []),
        )

    def undo(self, ends: Ends) -> None:
        found = ends.host.get_link(self.name) if self.made else None
        if found is not None and self.attachment.owns(found.alias):
            ends.drop(rtnl.del_link(found.index))


class PodSysctls(Step):
    """Set switches of the pod's interface before it comes up.

    ``writes`` are (path, value, required); an optional one that cannot be set is passed over.
    """

    __slots__ = ("writes",)
    remedy = "IPv6 may be off in this kernel (ipv6.disable=1): use an IPv4-only configuration"

    def __init__(self, writes: Sequence[tuple[str, str, bool]]) -> None:
        self.writes = list(writes)

    def describe(self) -> list[str]:
        return [f"ip netns exec POD sysctl -w {path}={value}" for path, value, _ in self.writes]

    def apply(self, ends: Ends) -> None:
        with ends.entered_pod():
            for path, value, required in self.writes:
                if not required:
                    ends.wish(path, value)
                elif not sysctl.write(path, value):
                    raise FileNotFoundError(errno.ENOENT, "no such switch", f"/proc/sys/{path}")


class ConfigurePod(Step):
    """Give the pod's interface its addresses, bring it up, add its routes: one batch."""

    __slots__ = ("addresses", "dad", "ifname", "routes")
    is_batch = True
    remedy = (
        "the kernel takes no such address or route: correct subnet, gateway or routes of 'ipam'"
    )

    def __init__(
        self, ifname: str, addresses: Sequence[Prefix], routes: Sequence[Route], *, dad: bool
    ) -> None:
        self.ifname = ifname
        self.addresses = list(addresses)
        self.routes = list(routes)
        self.dad = dad

    def describe(self) -> list[str]:
        pod = "ip -n POD"
        return [
            *(f"{pod} address add {a} dev {self.ifname}{self._nodad(a)}" for a in self.addresses),
            f"{pod} link set {self.ifname} up",
            *(f"{pod} route append {_words(route)} dev {self.ifname}" for route in self.routes),
        ]

    def _nodad(self, address: Prefix) -> str:
        return " nodad" if address.family == 6 and not self.dad else ""

    def apply(self, ends: Ends) -> None:
        index = ends.pod_index(self.ifname)
        before: list[Message] = [
            *(rtnl.new_address(index, a, nodad=bool(self._nodad(a))) for a in self.addresses),
            rtnl.set_link(index, up=True),
        ]
        try:
            ends.pod.execute(*before, *(_new_route(index, route) for route in self.routes))
        except NetlinkError as error:
            for refusal in (error, *error.also):
                position = refusal.position - len(before)
                if refusal.errno != errno.EEXIST or position < 0:
                    raise refusal from None
                self._after_others(ends, index, self.routes[position])

    def _after_others(self, ends: Ends, index: int, route: Route) -> None:
        """Add a route of IPv6 whose destination has one already, of another interface or gateway.

        It comes after that one, as in IPv4, where routes to one destination stand in a row.  With
        the same priority the kernel would make one route of them, and split the flows.
        """
        first = route.metrics.get("priority") or USUAL_PRIORITY[route.dst.family]
        for priority in range(first + 1, first + 1 + _ROUTES_IN_A_ROW):
            try:
                ends.pod.execute(_new_route(index, route, priority))
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise
            else:
                return
        raise NetlinkError(errno.EEXIST, f"{_ROUTES_IN_A_ROW} routes to {route.dst} are there")


class Finish(Step):
    """Let the host ask anew who has the pod's addresses, and mark the attachment complete.

    The entries are emptied, not filled: a plugin later in the chain (tuning) may change the MAC,
    and one that was filled in would send packets to the old one for half a minute.
    """

    __slots__ = ("addresses", "alias", "bridge", "name")

    def __init__(self, alias: str, name: str, bridge: Link, addresses: Sequence[Address]) -> None:
        self.alias = alias
        self.name = name
        self.bridge = bridge
        self.addresses = list(addresses)

    def describe(self) -> list[str]:
        return [
            *(
                f"ip neighbour replace {address} dev {self.bridge.name} nud none"
                for address in self.addresses
            ),
            f"ip link set {self.name} alias '{self.alias}'",
        ]

    def apply(self, ends: Ends) -> None:
        ends.host.execute(
            *(
                rtnl.replace_neighbour(self.bridge.index, address, None, state=rtnl.NUD_NONE)
                for address in self.addresses
            ),
            rtnl.set_link(self.name, alias=self.alias),
        )

    def undo(self, ends: Ends) -> None:
        for address in self.addresses:
            ends.drop(rtnl.del_neighbour(self.bridge.index, address))


def _new_route(index: int, route: Route, priority: int | None = None) -> Message:
    known = route.metrics.get
    return rtnl.new_route(
        index,
        route.dst,
        gw=route.gw,
        mtu=known("mtu"),
        advmss=known("advmss"),
        priority=priority or known("priority"),
        table=known("table"),
        scope=known("scope"),
        append=route.dst.family == 4,
    )


def _words(route: Route) -> str:
    words = [str(route.dst)]
    words += [f"via {route.gw}"] if route.gw is not None else ["scope link"]
    words += [f"{key} {value}" for key, value in route.metrics.items()]
    return " ".join(words)
