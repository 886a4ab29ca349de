"""The verbs of host-local: plain functions of one call's `Args`.

`flannel` calls them in its own process, with the delegate's conf as `args.conf`. Results have
the inner shape of version 1.1.0. What is rare (a full pool, CHECK's comparison, GC, STATUS) is
imported when it is needed.
"""

from __future__ import annotations

from cni.errors import ADDRESS_TAKEN, POOL_EXHAUSTED, CNIError, combine
from ipam import allocator
from ipam.conf import Conf, read_request
from ipam.index import netns_id
from ipam.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.cidr import Address
    from cni.types import Args, IPConfig, Result
    from ipam.conf import Request
    from ipam.index import Owner
    from ipam.ranges import Range, RangeSet
    from ipam.subnet_env import SubnetEnv

NEEDS_NETNS = False  # leases are about names and files; CNI_NETNS=/dev/null is common usage
RESULTS_DIR = "/var/lib/cni/results"  # libcni's cache, a witness of who lives
_PROBES = 64  # taken addresses in a row after which one listing is cheaper


def cmd_add(args: Args, results_dir: str = RESULTS_DIR) -> Result:
    """Lease one address of every range set to the attachment, all of them or none."""
    conf = Conf(args.conf)
    request = read_request(conf, args.cni_args, lambda: _node(conf, conf.wait_s))
    result: Result = {"ips": [], "routes": request.routes, "dns": {}}
    if request.resolv_conf:
        from ipam import resolv

        result["dns"] = resolv.load(request.resolv_conf)
    try:
        store = Store.open(conf.data_dir, conf.name, conf.lock_timeout_s, create=True)
        assert store is not None  # noqa: S101 - it was to be made
        with store:
            result["ips"] = _Allocation(args, conf, store, results_dir).run(request)
    except OSError as error:
        raise _failure("failed to lease an address", conf, error) from error
    return result


def cmd_del(args: Args) -> None:
    """Release all that the attachment holds; nothing to release is success."""
    conf = Conf(args.conf)
    what = f"failed to release the addresses of {args.container_id} {args.ifname}"
    failures: list[OSError] = []
    try:
        store = Store.open(conf.data_dir, conf.name, conf.lock_timeout_s, create=False)
        if store is None:
            return
        with store:
            for owner in _owners(args):
                names = [str(address) for address in store.held(owner)]
                if names:
                    failures = store.release(owner, names)
                    break
    except OSError as error:
        failures = [error]
    if failures:
        raise combine(what, [_failure(what, conf, failure) for failure in failures])


def held(args: Args) -> list[Address]:
    """The addresses leased to the attachment; none if that cannot be read.

    For a DEL that nobody tells which addresses it is about.
    """
    conf = Conf(args.conf)
    try:
        store = Store.look(conf.data_dir, conf.name)
        if store is None:
            return []
        with store:
            return [address for owner in _owners(args) for address in store.held(owner)]
    except OSError:
        return []


def cmd_check(args: Args) -> None:
    """Compare the attachment's leases with prevResult; every difference at once."""
    from ipam import verify

    conf = Conf(args.conf)
    try:
        verify.check(args, conf, _owners(args))
    except OSError as error:
        raise _failure("failed to check the leases", conf, error) from error


def cmd_gc(args: Args, results_dir: str = RESULTS_DIR) -> None:
    """Free what is not a valid attachment; goes on after errors, reports them together."""
    from ipam import sweep, verify
    from ipam.witness import Witness

    conf = Conf(args.conf)
    valid = verify.valid_attachments(args.conf)
    try:
        store = Store.open(conf.data_dir, conf.name, conf.lock_timeout_s, create=False)
        if store is None:
            return
        with store:
            witness = Witness(conf.name, results_dir)
            errors = sweep.collect(store, valid, witness, args.note)
    except OSError as error:
        errors = [_failure("failed to collect the leases", conf, error)]
    if errors:
        raise combine("failed to collect all leases", errors)


def cmd_status(args: Args, results_dir: str = RESULTS_DIR) -> None:
    """CNIError 50 when ADD could not lease an address."""
    from ipam import verify

    conf = Conf(args.conf)
    verify.status(conf, lambda: _node(conf, 0.0), results_dir)


def _failure(what: str, conf: Conf, error: OSError) -> CNIError:
    from ipam.failure import io_error  # this call has failed already

    return io_error(what, f"{conf.data_dir}/{conf.name}", error)


def _node(conf: Conf, wait_s: float) -> SubnetEnv:
    from ipam import subnet_env  # only when the conf has no ranges of its own

    return subnet_env.load(conf.subnet_file, wait_s)


def _owners(args: Args) -> tuple[Owner, Owner]:
    """Return the attachment as leases name it: today's format, and the one before ifnames."""
    return (args.container_id, args.ifname), (args.container_id, "")


class _Allocation:
    """One ADD under the lock."""

    __slots__ = ("_args", "_conf", "_results_dir", "_store")

    def __init__(self, args: Args, conf: Conf, store: Store, results_dir: str) -> None:
        self._args = args
        self._conf = conf
        self._store = store
        self._results_dir = results_dir

    def run(self, request: Request) -> list[IPConfig]:
        """Lease from each set in turn; when it raises, the store undoes all of them."""
        owner = _owners(self._args)[0]
        holding = {name: one for one in _owners(self._args) for name in self._store.held(one)}
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
            ips.append({"address": f"{address}/{one.subnet.length}", "gateway": str(one.gateway)})
        if wanted:
            raise CNIError(
                ADDRESS_TAKEN,
                f"failed to allocate all requested IPs: {' '.join(map(str, wanted))}",
                "no range set is left for them: "
                + "; ".join(f"range {n} is {one}" for n, one in enumerate(request.range_sets)),
            )
        for index, address in enumerate(leased):
            self._store.set_last_reserved(index, address)
        kept = [address for address, one in holding.items() if one == owner]
        netns = self._args.netns
        self._store.record(owner, [*leased, *kept], netns_id(netns), netns)
        return ips

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
        address = self._reserve(self._untried(range_set, last))
        if address is None:
            from ipam.sweep import reclaim
            from ipam.witness import Witness

            witness = Witness(self._conf.name, self._results_dir)
            if reclaim(self._store, range_set, witness, self._args.note):
                address = self._reserve(self._untried(range_set, last))
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
        return self._store.reserve(addresses, _owners(self._args)[0])

    def _untried(self, range_set: RangeSet, last: Address | None) -> Iterator[Address]:
        """Give the candidates; after many taken ones, only those that are not listed."""
        names: set[str] = set()
        for count, (address, _) in enumerate(allocator.candidates(range_set, last)):
            if count == _PROBES:
                names = self._store.names()
            if str(address) not in names:
                yield address

    def _check_requested(self, range_set: RangeSet, address: Address) -> None:
        """Refuse what the set never gives, and what somebody holds."""
        one = range_set.range_of(address)
        if one is not None and address == one.gateway:
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
        if not self._store.is_free(str(address)):
            raise self._taken(range_set, address)

    def _taken(self, range_set: RangeSet, address: Address) -> CNIError:
        owner = self._store.owner(str(address))
        whose = " ".join(owner).strip() if owner else "somebody unknown"
        return CNIError(
            ADDRESS_TAKEN,
            f"requested IP address {address} is not available in range set {range_set}",
            f"{self._store.path}/{address} says that {whose} holds it; delete that pod first, "
            "or remove the file if it is gone",
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
        """Take a lease of this attachment back if its holder is provably gone; whether it was."""
        from ipam import sweep
        from ipam.witness import Witness

        lease = self._store.lease(str(address))
        if lease is None:
            return True
        witness = Witness(self._conf.name, self._results_dir)
        reason = sweep.proof(self._store, lease, witness)
        return bool(reason) and not sweep.free(self._store, lease, reason, self._args.note)
