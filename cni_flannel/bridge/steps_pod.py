"""Steps on one attachment: the pod's interface, and the end.  Each can be undone.

Imports: errno, ``netlink``, the protocol package.
"""

from __future__ import annotations

import errno

from cni_flannel.bridge.layer3 import MAX_METRIC, USUAL_PRIORITY
from cni_flannel.bridge.steps import Step
from netlink import rtnl, sysctl
from netlink.nlmsg import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.cidr import Address, Prefix
    from cni_flannel.bridge.ends import Ends
    from cni_flannel.bridge.layer3 import Route
    from netlink.link import Link
    from netlink.nlmsg import Message


_ROUTES_IN_A_ROW = 16


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
    """Give the pod's interface its addresses, bring it up, add its routes: one batch.

    ``mac`` is the one that it gets, if another than it was made with.
    """

    __slots__ = ("addresses", "dad", "ifname", "mac", "routes")
    is_batch = True
    remedy = (
        "the kernel takes no such address or route: correct subnet, gateway or routes of 'ipam'"
    )

    def __init__(
        self,
        ifname: str,
        addresses: Sequence[Prefix],
        routes: Sequence[Route],
        *,
        dad: bool,
        mac: str = "",
    ) -> None:
        self.ifname = ifname
        self.mac = mac
        self.addresses = list(addresses)
        self.routes = list(routes)
        self.dad = dad

    def describe(self) -> list[str]:
        pod = "ip -n POD"
        return [
            *(f"{pod} address add {a} dev {self.ifname}{self._nodad(a)}" for a in self.addresses),
            f"{pod} link set {self.ifname} up{f' address {self.mac}' if self.mac else ''}",
            *(f"{pod} route append {_words(route)} dev {self.ifname}" for route in self.routes),
        ]

    def _nodad(self, address: Prefix) -> str:
        return " nodad" if address.family == 6 and not self.dad else ""

    def apply(self, ends: Ends) -> None:
        index = ends.pod_index(self.ifname)
        before: list[Message] = [
            *(rtnl.new_address(index, a, nodad=bool(self._nodad(a))) for a in self.addresses),
            rtnl.set_link(index, up=True, mac=self.mac or None),
        ]
        try:
            ends.pod.execute(*before, *(_new_route(index, route) for route in self.routes))
        except NetlinkError as error:
            for refusal in (error, *error.also):
                if refusal.position < len(before):
                    raise refusal from None
                self._after_others(ends, index, refusal, len(before))

    def _after_others(
        self, ends: Ends, index: int, refusal: NetlinkError, number_before: int
    ) -> None:
        """Add a route that was refused, as another interface or gateway may have its destination.

        In IPv6 it comes after that one, as in IPv4, where routes to one destination stand in a
        row.  With the same priority the kernel would make one route of them, and split the flows.
        A gateway may have been out of reach only because the route to it comes after another.
        """
        route = self.routes[refusal.position - number_before]
        first = route.metrics.get("priority") or USUAL_PRIORITY[route.dst.family]
        for priority in range(first, min(first + _ROUTES_IN_A_ROW, MAX_METRIC) + 1):
            try:
                ends.pod.execute(_new_route(index, route, priority))
            except NetlinkError as error:
                error.position = refusal.position
                if error.errno != errno.EEXIST:
                    raise
                refusal = error
            else:
                return
        raise refusal


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
