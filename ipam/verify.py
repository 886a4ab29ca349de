"""CHECK and STATUS: what the leases should look like, against what is there. Changes nothing.

Also reads the list that GC is given. Imported by these verbs only.
"""

from __future__ import annotations

from cni import files
from cni.cidr import parse_prefix
from cni.errors import (
    ATTACHMENT_DIFFERS,
    PLUGIN_NOT_AVAILABLE,
    CNIError,
)
from cni.wire import canonical, dumps
from ipam import allocator
from ipam.allocation import untried
from ipam.conf import wrong
from ipam.request import read_range_sets
from ipam.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni.cidr import Address
    from cni.types import Args
    from ipam.conf import Conf
    from ipam.index import Owner
    from ipam.ranges import RangeSet
    from ipam.subnet_env import SubnetEnv

_VALID = "cni.dev/valid-attachments"
_SEND = "the runtime has to send objects with containerID and ifname; nothing was removed"


def check(
    args: Args, conf: Conf, owners: tuple[Owner, Owner], load_node: Callable[[], SubnetEnv]
) -> None:
    """Compare the attachment's leases with prevResult; one sentence a difference, all at once."""
    found = _previous(args.conf)
    sets = _sets_if_known(conf, load_node)
    store = Store.open(conf.data_dir, conf.name, conf.lock_timeout_s, create=False)
    if store is None:
        raise _differs(args, conf, [_nothing(args)])
    with store:
        held = [address for owner in owners for address in store.held(owner)]
        if not held:
            raise _differs(args, conf, [_nothing(args)])
        if found is None:
            return
        differences = []
        for address in found:
            owner = store.owner(str(address))
            if address in held or (owner is None and not _is_ours(sets, address)):
                continue
            whose = f"leased to {' '.join(owner).strip()}" if owner else "not leased"
            differences.append(f"address {address} of prevResult is {whose}")
    differences += [
        f"address {address} is leased to this attachment but not in prevResult"
        for address in sorted(set(held) - set(found))
    ]
    if differences:
        raise _differs(args, conf, differences)


def status(conf: Conf, load_node: Callable[[], SubnetEnv], results_dir: str) -> None:
    """CNIError 50 when some range set has no address left, or the node has no subnet; OSError."""

    def load() -> SubnetEnv:
        try:
            return load_node()
        except CNIError as error:
            raise CNIError(PLUGIN_NOT_AVAILABLE, error.msg, error.details) from None

    sets = read_range_sets(conf, load)
    files.require_room(f"{conf.data_dir}/{conf.name}")
    store = Store.look(conf.data_dir, conf.name)
    if store is None:
        return
    with store:
        for index, range_set in enumerate(sets):
            if not _has_room(store, index, range_set, conf, results_dir):
                raise CNIError(
                    PLUGIN_NOT_AVAILABLE,
                    f"no IP addresses available in range set: {range_set}",
                    f"all {allocator.capacity(range_set)} addresses are leased in {store.path} "
                    "and no holder is known to be gone",
                )


def valid_attachments(conf: dict[str, Any]) -> set[Owner] | None:
    """Read GC's list of (container ID, ifname); None when the key is absent. CNIError 7."""
    listed = canonical(conf, (_VALID,)).get(_VALID)
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise wrong(f"{_VALID} {dumps(listed)} is not a list of attachments", _SEND)
    return {_attachment(one) for one in listed}


def _attachment(one: Any) -> Owner:
    if isinstance(one, dict):
        one = canonical(one, ("containerID", "ifname"))
        container_id, ifname = one.get("containerID"), one.get("ifname")
        if isinstance(container_id, str) and isinstance(ifname, str) and container_id:
            return container_id, ifname
    raise wrong(f"{_VALID} holds {dumps(one)}, which has no containerID and ifname", _SEND)


def _has_room(store: Store, index: int, range_set: RangeSet, conf: Conf, results_dir: str) -> bool:
    """Whether ADD would find an address: a free one, or one whose holder is provably gone."""
    candidates = untried(store, range_set, store.last_reserved(index))
    if any(store.is_free(str(address)) for address in candidates):
        return True
    from ipam import sweep  # a full pool

    witness = sweep.witness_of(store, conf.name, results_dir)
    return any(sweep.dead(store, range_set, witness))


def _previous(conf: dict[str, Any]) -> list[Address] | None:
    """Return the addresses of prevResult; None without one."""
    previous = canonical(conf, ("prevResult",)).get("prevResult")
    if previous is None:
        return None
    ips = canonical(previous, ("ips",)).get("ips", []) if isinstance(previous, dict) else None
    if not isinstance(ips, list):
        raise wrong(f"prevResult {dumps(previous)} is not a result")
    try:
        return [parse_prefix(canonical(one, ("address",))["address"]).address for one in ips]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise wrong(f"prevResult.ips {dumps(ips)} is not a list of addresses") from None


def _sets_if_known(conf: Conf, load_node: Callable[[], SubnetEnv]) -> list[RangeSet]:
    """Read the ranges; none while the node's own are not known, which is not CHECK's affair."""
    try:
        return read_range_sets(conf, load_node)
    except CNIError:
        if conf.subnet_file:
            return []
        raise


def _is_ours(sets: list[RangeSet], address: Address) -> bool:
    return any(one.range_of(address) for one in sets)


def _nothing(args: Args) -> str:
    return f"host-local: Failed to find address added by container {args.container_id}"


def _differs(args: Args, conf: Conf, differences: list[str]) -> CNIError:
    return CNIError(
        ATTACHMENT_DIFFERS,
        "; ".join(differences),
        f"compared the leases in {conf.data_dir}/{conf.name} with prevResult of "
        f"{args.container_id} {args.ifname}; the pod's sandbox has to be made anew",
    )
