"""The verbs of host-local: plain functions of one call's `Args`.

`flannel` calls them in its own process, with the delegate's conf as `args.conf`. Results have
the inner shape of version 1.1.0. What is rare (a full pool, CHECK's comparison, GC, STATUS) is
imported when it is needed, and so is what only ADD needs.
"""

from __future__ import annotations

from cni.errors import PLUGIN_NOT_AVAILABLE, CNIError, Interrupted, combine
from ipam import claim
from ipam.conf import Conf, for_removal
from ipam.index import owners_of
from ipam.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.cidr import Address
    from cni.types import Args, Result
    from ipam.lease import Lease
    from ipam.subnet_env import SubnetEnv

NEEDS_NETNS = False  # leases are about names and files; CNI_NETNS=/dev/null is common usage
RESULTS_DIR = "/var/lib/cni/results"  # libcni's cache, a witness of who lives


def cmd_add(args: Args, results_dir: str = RESULTS_DIR) -> Result:
    """Lease one address of every range set to the attachment, all of them or none."""
    from ipam.allocation import Allocation
    from ipam.request import read_request

    conf = Conf(args.conf)
    request = read_request(conf, args.cni_args, lambda: _node(conf, conf.wait_s, args))
    result: Result = {"ips": [], "routes": request.routes, "dns": {}}
    if request.resolv_conf:
        from ipam import resolv

        result["dns"] = resolv.load(request.resolv_conf)
    try:
        store = Store.open(conf.data_dir, conf.name, conf.lock_timeout_s, create=True)
        assert store is not None  # noqa: S101 - it was to be made
        with store:
            result["ips"] = Allocation(args, conf, store, results_dir).run(request)
    except OSError as error:
        raise _failure("failed to lease an address", conf, error) from error
    except Interrupted:
        if result["ips"]:  # it came when the leases were made and vouched for
            claim.take_back(args)
        raise
    return result


def cmd_del(args: Args) -> None:
    """Release all that the attachment holds; nothing to release is success."""
    claim.release(args)


def held(args: Args) -> list[Address]:
    """The addresses leased to the attachment; none if that cannot be read.

    For a DEL that nobody tells which addresses it is about.
    """
    conf = for_removal(args.conf)
    try:
        store = Store.look(conf.data_dir, conf.name)
        if store is None:
            return []
        with store:
            return [address for owner in owners_of(args) for address in store.held(owner)]
    except OSError:
        return []


def doomed(args: Args, results_dir: str = RESULTS_DIR) -> list[Lease]:
    """The leases that a GC is about to free; none if that cannot be read."""
    from ipam import sweep, verify

    conf = for_removal(args.conf)
    valid = verify.valid_attachments(args.conf)
    try:
        store = Store.look(conf.data_dir, conf.name)
        if store is None:
            return []
        with store:
            found = sweep.doomed(store, valid, (conf.name, results_dir), lambda _: None, [])
            return [lease for lease, _ in found]
    except OSError:
        return []


def cmd_check(args: Args) -> None:
    """Compare the attachment's leases with prevResult; every difference at once."""
    from ipam import verify

    conf = Conf(args.conf)
    try:
        verify.check(args, conf, owners_of(args), lambda: _node(conf, 0.0, args))
    except OSError as error:
        raise _failure("failed to check the leases", conf, error) from error


def cmd_gc(args: Args, results_dir: str = RESULTS_DIR) -> None:
    """Free what is not a valid attachment; goes on after errors, reports them together."""
    from ipam import sweep, verify

    conf = for_removal(args.conf)
    valid = verify.valid_attachments(args.conf)
    try:
        store = Store.open(conf.data_dir, conf.name, conf.lock_timeout_s, create=False)
        if store is None:
            return
        with store:
            errors = sweep.collect(store, valid, (conf.name, results_dir), args.note)
    except OSError as error:
        errors = [_failure("failed to collect the leases", conf, error)]
    if errors:
        raise combine("failed to collect all leases", errors)


def cmd_status(args: Args, results_dir: str = RESULTS_DIR) -> None:
    """CNIError 50 when ADD could not lease an address."""
    from ipam import verify

    conf = Conf(args.conf)
    try:
        verify.status(conf, lambda: _node(conf, 0.0, args), results_dir)
    except OSError as error:
        cause = _failure("could not lease an address", conf, error)
        raise CNIError(PLUGIN_NOT_AVAILABLE, cause.msg, cause.details) from error


def _failure(what: str, conf: Conf, error: OSError) -> CNIError:
    from ipam.failure import io_error  # this call has failed already

    return io_error(what, f"{conf.data_dir}/{conf.name}", error)


def _node(conf: Conf, wait_s: float, args: Args) -> SubnetEnv:
    from ipam import subnet_env  # only when the conf has no ranges of its own

    return subnet_env.load(conf.subnet_file, wait_s, args.resident)
