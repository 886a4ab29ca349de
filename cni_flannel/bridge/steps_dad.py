"""The step that waits for duplicate address detection, for configurations with ``enabledad``.

Imports: the protocol package, ``netlink``.
"""

from __future__ import annotations

from cni import errors
from cni.errors import CNIError
from cni_flannel.bridge.steps import Step
from netlink import rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.cidr import Prefix
    from cni_flannel.bridge.ends import Ends

TIMEOUT_S = 5.0


class DetectDuplicates(Step):
    """Wait until the kernel has asked the link whether somebody else has an address (RFC 4862)."""

    __slots__ = ("addresses", "ifname")

    def __init__(self, ifname: str, addresses: Sequence[Prefix]) -> None:
        self.ifname = ifname
        self.addresses = list(addresses)

    def describe(self) -> list[str]:
        return [f"ip -n POD monitor address dev {self.ifname}  # until none is tentative"]

    def apply(self, ends: Ends) -> None:
        index = ends.pod_index(self.ifname)
        events = ends.pod_address_events()
        try:
            ended = events.until(lambda: not self._is_any_tentative(ends, index), TIMEOUT_S)
        finally:
            events.close()
        if not ended:
            raise CNIError(
                errors.KERNEL_REFUSED,
                f"link {self.ifname} still has tentative addresses after {TIMEOUT_S:.0f} seconds",
                "leave 'enabledad' out, or see why the link has no carrier",
            )

    def _is_any_tentative(self, ends: Ends, index: int) -> bool:
        found = [a for a in ends.pod.addresses(index, 6) if a.prefix in self.addresses]
        for address in found:
            if address.flags & rtnl.IFA_F_DADFAILED:
                raise CNIError(
                    errors.ADDRESS_TAKEN,
                    f"link {self.ifname} has address {address.prefix} in DADFAILED state",
                    "another host on the link has this address: find it (ip neighbour), or put "
                    "the address into 'exclude' of the 'ipam' section",
                )
        return any(address.flags & rtnl.IFA_F_TENTATIVE for address in found)
