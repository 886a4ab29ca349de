"""One ADD's work on the leases, under the lock: an address of every range set, or none.

Decides which address; `allocator` says in which order they are tried, `store` makes the leases
and takes them back when this raises.
"""

from __future__ import annotations

from cni import callname
from cni.errors import ADDRESS_TAKEN, POOL_EXHAUSTED, CNIError
from cni.netns import identity
from ipam import allocator
from ipam.index import owners_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.cidr import Address
    from cni.types import Args, IPConfig
    from ipam.conf import Conf
    from ipam.index import Owner
    from ipam.lease import Lease
    from ipam.ranges import Range, RangeSet
    from ipam.request import Request
    from ipam.store import Store
    from ipam.witness import Witness

_PROBES = 64  # taken addresses in a row after which one listing is cheaper


def untried(store: Store, range_set: RangeSet, last: Address | None) -> Iterator[Address]:
    """Give the candidates; after many taken ones, only those that are not listed."""
    names: set[str] = set()
    for count, (address, _) in enumerate(allocator.candidates(range_set, last)):
        if count == _PROBES:
            names = store.names()
        if str(address) not in names:
            yield address


class Allocation:
    """One ADD under the lock."""

    __slots__ = ("_args", "_conf", "_nameless", "_results_dir", "_store", "_witness")

    def __init__(self, args: Args, conf: Conf, store: Store, results_dir: str) -> None:
        self._args = args
        self._conf = conf
        self._store = store
        self._results_dir = results_dir
        self._witness: Witness | None = None
        self._nameless: list[Address] = []  # in use, and nobody knows by whom

    def run(self, request: Request) -> list[IPConfig]:
        """Lease from each set in turn; when it raises, the store undoes all of them."""
        if not self._store.holders.is_indexed:
            self._recover(request)
        owner = owners_of(self._args)[0]
        holding = {name: one for one in owners_of(self._args) for name in self._store.held(one)}
        wanted = list(request.wanted)
        ips: list[IPConfig] = []
        leased: list[Address] = []
        for index, range_set in enumerate(request.range_sets):
            try:
                address, one = self._lease(index, range_set, wanted, holding)
            except CNIError as error:
                msg = f"failed to allocate for range {index}: {error.msg}"
                raise CNIError(error.code, msg, error.details) from None
            leased.append(address)
            ips.append({"address": f"{address}/{one.subnet.length}"})
            if one.gateway is not None:
                ips[-1]["gateway"] = str(one.gateway)
        if wanted:
            raise CNIError(
                ADDRESS_TAKEN,
                f"failed to allocate all requested IPs: {' '.join(map(str, wanted))}",
                "no range set is left for them: "
                + "; ".join(f"range {n} is {one}" for n, one in enumerate(request.range_sets)),
            )
        for index, address in enumerate(leased):
            self._store.set_last_reserved(index, address)
        if not self._store.holders.is_indexed:
            self._store.holders.reindex(self._nameless)
        kept = [address for address, one in holding.items() if one == owner]
        args = self._args
        self._store.holders.note(owner, [*leased, *kept], identity(args.netns_file), args.netns)
        return ips

    def _recover(self, request: Request) -> None:
        """Bring back the leases that have vanished while their pods live."""
        unborne = self._store.holders.unborne()
        if unborne != []:
            from ipam import recovery

            network = self._conf.name, self._results_dir
            self._nameless = recovery.restore(
                self._store, unborne, request.range_sets, network, self._args.note
            )

    def _lease(
        self,
        index: int,
        range_set: RangeSet,
        wanted: list[Address],
        holding: dict[Address, Owner],
    ) -> tuple[Address, Range]:
        """Lease one address of a set; takes a requested one off `wanted`."""
        requested = next((one for one in wanted if range_set.range_of(one)), None)
        if requested is not None:
            wanted.remove(requested)
            self._check_requested(range_set, requested)
        self._check_duplicate(range_set, holding)
        if requested is not None:
            address = self._reserve(iter((requested,)))
            if address is None:
                raise self._taken(range_set, requested)
        else:
            address = self._next(index, range_set)
        one = range_set.range_of(address)
        assert one is not None  # noqa: S101 - it came from there
        return address, one

    def _next(self, index: int, range_set: RangeSet) -> Address:
        """Lease the next address, round robin; a full pool takes back from the dead first."""
        last = self._store.last_reserved(index)
        address = self._reserve(untried(self._store, range_set, last))
        if address is None:
            from ipam.sweep import reclaim

            if reclaim(self._store, range_set, self._ask(), self._args.note):
                address = self._reserve(untried(self._store, range_set, last))
        if address is None:
            count = allocator.capacity(range_set)
            raise CNIError(
                POOL_EXHAUSTED,
                f"no IP addresses available in range set: {range_set}",
                f"all {count} addresses are leased in {self._store.path} and no holder is known "
                "to be gone; delete pods, widen the range, or remove the files of containers "
                "that do not exist any more",
            )
        return address

    def _reserve(self, addresses: Iterator[Address]) -> Address | None:
        owner = owners_of(self._args)[0]
        free = (address for address in addresses if address not in self._nameless)
        return self._store.reserve(free, owner, callname.time_ns(self._args.environ))

    def _check_requested(self, range_set: RangeSet, address: Address) -> None:
        """Refuse what the set never gives, and what somebody holds."""
        if address in range_set.gateways:
            raise CNIError(
                ADDRESS_TAKEN,
                f"requested ip {address} is subnet's gateway",
                f"ask for another address of {range_set}",
            )
        if not allocator.may_give(range_set, address):
            raise CNIError(
                ADDRESS_TAKEN,
                f"requested ip {address} is excluded from range set {range_set}",
                "ask for another address, or take it out of ipam.exclude",
            )
        if not (self._store.is_free(str(address)) or self._is_freed(address)):
            raise self._taken(range_set, address)

    def _taken(self, range_set: RangeSet, address: Address) -> CNIError:
        owner = self._store.owner(str(address))
        whose = " ".join(owner).strip() if owner else "somebody unknown"
        if address in self._nameless:
            whose = "a veth's other end"
        return CNIError(
            ADDRESS_TAKEN,
            f"requested IP address {address} is not available in range set {range_set}",
            f"{self._store.path}/{address} says that {whose} holds it, and nothing proves that it "
            "is gone; delete that pod first, or remove the file if it is gone",
        )

    def _check_duplicate(self, range_set: RangeSet, holding: dict[Address, Owner]) -> None:
        """Refuse a second address of the set, unless the first one's holder is provably dead."""
        for address, owner in list(holding.items()):
            if range_set.range_of(address) is None:
                continue
            if not self._is_freed(address):
                raise CNIError(
                    ADDRESS_TAKEN,
                    f"{address} has been allocated to {self._args.container_id}, "
                    "duplicate allocation is not allowed",
                    f"the lease file {self._store.path}/{address} is this attachment's own: run "
                    "DEL for it, or remove the file if the pod is gone",
                )
            for other, one in list(holding.items()):
                if one == owner:
                    del holding[other]

    def _is_freed(self, address: Address) -> bool:
        """Take a lease back if its holder is provably gone, or this call; whether it was."""
        from ipam import sweep

        lease = self._store.lease(str(address))
        if lease is None:
            return True
        reason = _made_by(self._args, lease) or sweep.proof(self._store, lease, self._ask())
        return bool(reason) and not sweep.free(self._store, lease, reason, self._args.note)

    def _ask(self) -> Witness:
        """Who knows which namespaces are gone; asks all leases, once."""
        if self._witness is None:
            from ipam.sweep import witness_of

            self._witness = witness_of(self._store, self._conf.name, self._results_dir)
            self._witness.place(self._args.container_id, self._args.netns_file)
        return self._witness


def _made_by(args: Args, lease: Lease) -> str:
    """Why a lease is known to be the call's own, or ""."""
    if not callname.is_time(args.environ, lease.mtime_ns) or lease.owner not in owners_of(args):
        return ""
    return "this call leased it, in a process that did not answer"
