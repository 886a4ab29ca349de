"""What one call has to do with the leases of its attachment: which are its own, which nobody's.

An attachment may be added twice at once, or deleted while it is added. A call's own leases have the
time of the call (`cni.callname`): it must have them still when all is done, and when it fails it
takes back these alone. Raises CNIError.
Imports os, the protocol package, the parts of this package.
"""

from __future__ import annotations

import os

from cni import callname
from cni.errors import combine
from cni.netns import identity
from ipam.conf import for_removal
from ipam.index import owners_of
from ipam.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.cidr import Address
    from cni.types import Args
    from ipam.index import Owner


def holds(args: Args, addresses: Iterable[Address]) -> bool:
    """Whether the call still has the leases of these addresses that it made."""
    conf = for_removal(args.conf)
    for address in addresses:
        try:
            mtime_ns = os.stat(f"{conf.data_dir}/{conf.name}/{address}").st_mtime_ns
        except OSError:
            return False
        if not callname.is_time(args.environ, mtime_ns):
            return False
    return True


def take_back(args: Args) -> None:
    """Release what this call has leased, and nothing of another call for the attachment."""

    def is_own(store: Store, _: Owner, name: str) -> bool:
        lease = store.lease(name)
        return lease is not None and callname.is_time(args.environ, lease.mtime_ns)

    release(args, is_own)


def forget_killed(args: Args) -> bool:
    """Release what a killed ADD of the attachment left; whether there was something.

    The caller knows that no other one is at work in this network namespace. A lease of which
    another namespace is known may be a living one's.
    """
    here = identity(args.netns_file)

    def is_from_here(store: Store, owner: Owner, _: str) -> bool:
        entry = store.index.read(owner)
        return entry is None or entry.netns_id in ("", here)

    return release(args, is_from_here)


def release(args: Args, chosen: Callable[[Store, Owner, str], bool] = lambda *_: True) -> bool:
    """Release the attachment's leases, or of these the chosen ones; whether there were some."""
    conf = for_removal(args.conf)
    what = f"failed to release the addresses of {args.container_id} {args.ifname}"
    names: list[str] = []
    failures: list[OSError] = []
    try:
        store = Store.open(conf.data_dir, conf.name, conf.lock_timeout_s, create=False)
        if store is None:
            return False
        with store:
            for owner in owners_of(args):
                held = [str(address) for address in store.held(owner)]
                names = [name for name in held if chosen(store, owner, name)]
                failures = store.release(owner if names == held else None, names)
                if names != held:
                    store.holders.doubt()  # its entry says of another call's leases
                if names:
                    break
    except OSError as error:
        failures = [error]
    if failures:
        from ipam.failure import io_error  # this call has failed already

        path = f"{conf.data_dir}/{conf.name}"
        raise combine(what, [io_error(what, path, failure) for failure in failures])
    return bool(names)
