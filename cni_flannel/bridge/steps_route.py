"""The step that leads the host to a pod whose gateway is in another subnet, or in none.

Imports: errno, ``netlink``.
"""

from __future__ import annotations

import errno

from cni_flannel.bridge import links
from cni_flannel.bridge.steps import Step
from netlink import rtnl
from netlink.nlmsg import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.cidr import Prefix
    from cni_flannel.bridge.ends import Ends


class RouteToPod(Step):
    """Lead the host to addresses that are in no subnet of the bridge's own.

    The protocol proves the route ours: DEL finds it whatever the conf says of the bridge by then.
    """

    __slots__ = ("addresses", "holder")

    def __init__(self, holder: str, addresses: Sequence[Prefix]) -> None:
        self.holder = holder
        self.addresses = list(addresses)

    def describe(self) -> list[str]:
        how = f"dev {self.holder} proto {links.POD_ROUTE}"
        return [f"ip route append {address} {how}" for address in self.addresses]

    def apply(self, ends: Ends) -> None:
        index = ends.host_index(self.holder)
        for address in self.addresses:
            try:
                ends.host.execute(rtnl.new_route(index, address, protocol=links.POD_ROUTE))
            except NetlinkError as error:
                if error.errno != errno.EEXIST:  # an earlier pod's: it leads here as well
                    raise

    def undo(self, ends: Ends) -> None:
        ends.drop(*map(links.no_route, (address.address for address in self.addresses)))
