"""Taking attachments away: DEL of one, GC of all that the runtime does not list.

Rules of this file: every part is tried, whatever the others did, but no address of ours is given
back while the link that has it is there; what is gone already is success; nothing is touched that
is not proven the attachment's; errors are collected and told together, so that the runtime's retry
meets exactly what is left.
Imports: the parts of this package, ``netlink``, ``kernel``, ``ipam``.
"""

from __future__ import annotations

from cni import cidr, errors, version
from cni.attachment import Attachment, parse_alias
from cni.cidr import Prefix
from cni.errors import CNIError
from cni_flannel.bridge import links
from cni_flannel.bridge.conf import HOST_LOCAL
from cni_flannel.bridge.ends import Ends, refused
from ipam import plugin as host_local
from netlink import rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from cni.cidr import Address
    from cni.types import Args, Plugin
    from cni_flannel.bridge.conf import RemovalConf
    from netlink.link import Link
    from netlink.nlmsg import Message

    T = TypeVar("T")

_ROUNDS = 3  # of a DEL that meets one ADD after the other
_RETRY = "the runtime repeats the call"


class Attempts:
    """Runs parts of a clean-up one after the other and keeps their errors."""

    __slots__ = ("_errors", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._errors: list[CNIError] = []

    def run(self, part: Callable[..., T], *values: object) -> T | None:
        """Call ``part`` with the values, what it gives; an error of it is kept for ``finish``."""
        try:
            return part(*values)
        except CNIError as error:
            self._errors.append(error)
        except OSError as error:
            cause = refused(error)
            msg = f"{self._what}: {cause.msg}"
            self._errors.append(CNIError(cause.code, msg, f"{cause.details}\n{_RETRY}"))
        return None

    def keep(self, errors: Iterable[CNIError]) -> None:
        """Tell these errors as well."""
        self._errors += errors

    @property
    def clean(self) -> bool:
        """Whether no part has failed so far."""
        return not self._errors

    def finish(self) -> None:
        """Raise what was kept, all of it as one error."""
        if self._errors:
            raise errors.combine(self._what, self._errors)


def remove(args: Args, conf: RemovalConf, ipam: Plugin | None) -> None:
    """DEL: remove link, neighbours, lease and rules of one attachment.

    Rules are looked for where the conf asks for some, and it may have been changed since the ADD:
    where the link says that it may have some, and where there is no link that could say it.

    An IPAM plugin that is executed comes before the link, which it may need, as with Go's bridge.
    host-local's lease goes last, and then the link is looked for once more: an ADD that was at work
    has made one meanwhile, or finds its lease gone (``steps_claim``).
    """
    attachment = Attachment(conf.name, args.container_id, args.ifname)
    attempts = Attempts(f"detach {attachment.alias()}")
    with Ends.surviving(args) as ends:
        addresses = _addresses_of_result(args)
        args.require_caller()
        if ipam is not None and conf.ipam_type != HOST_LOCAL:
            attempts.run(ipam.cmd_del, args)
            ipam = None
        for _ in range(_ROUNDS):
            alias = attempts.run(_remove_link, args, conf, ends, attachment, addresses)
            # Who gave up has called again, and the lease and rules may be a later attachment's.
            args.require_caller()
            if conf.wants_rules or alias != attachment.alias():
                attempts.run(remove_rules, args, ends, attachment, addresses)
            if ipam is None or alias is None:
                break
            attempts.run(ipam.cmd_del, args)
            if not attempts.run(_has_link, ends, attachment):
                break
    attempts.finish()


def _has_link(ends: Ends, attachment: Attachment) -> bool:
    return links.find(ends.host, attachment)[0] is not None


def _remove_link(
    args: Args, conf: RemovalConf, ends: Ends, attachment: Attachment, addresses: list[Prefix]
) -> str:
    """Delete the veth pair by the host's end; by the pod's if the Go plugin made it.  Its alias.

    The bridge's neighbour entries go with it, in the same send: a DEL that is killed leaves both
    or neither, and before the lease goes, since then the next pod may have the address and an
    entry of its own.  ``addresses`` gets those that the pod's end had, or that are leased to it.
    """
    host_link, _ = links.find(ends.host, attachment)
    pod_link = _pod_link(conf, ends, attachment, host_link)
    if pod_link is not None:
        found = ends.pod.addresses(pod_link.index)
        there = [one.prefix for one in found if one.scope == rtnl.RT_SCOPE_UNIVERSE]
        if host_link is None and addresses and there and not set(there) & set(addresses):
            pod_link = None  # the earlier result names other addresses: another container's link
        else:
            addresses += [prefix for prefix in there if prefix not in addresses]
    if not addresses and conf.ipam_type == HOST_LOCAL:
        addresses += [Prefix(address, address.bits) for address in host_local.held(args)]
    removals = _forget(ends, host_link, conf.bridge, [prefix.address for prefix in addresses])
    index = 0 if pod_link is None else pod_link.link
    if host_link is not None:
        index = host_link.index
    if index:
        ends.drop_link(index, *removals)
    elif removals:
        ends.drop(*removals)
    return "" if host_link is None else host_link.alias


def _pod_link(
    conf: RemovalConf, ends: Ends, attachment: Attachment, host_link: Link | None
) -> Link | None:
    """The pod's end, if it is this attachment's."""
    if host_link is None:
        return links.of_reference_plugin(ends, attachment, conf.bridge)
    link = ends.pod.get_link(attachment.ifname) if ends.has_pod else None
    return link if link is not None and rtnl.paired(host_link, link) else None


def _forget(ends: Ends, port: Link | None, bridge: str, addresses: list[Address]) -> list[Message]:
    """Routes to pods' addresses, and neighbours on the bridge.

    That is the port's, whatever the conf calls it now; the one of that name if there is no port.
    """
    index = 0 if port is None else port.master
    if addresses and not index:
        master = ends.host.get_link(bridge)
        index = 0 if master is None else master.index
    neighbours = [rtnl.del_neighbour(index, address) for address in addresses if index]
    return [*neighbours, *map(links.no_route, addresses)]


def _addresses_of_result(args: Args) -> list[Prefix]:
    """The addresses of the earlier ADD, as far as the runtime tells them."""
    try:
        prev_result = version.prev_result(args.conf) or {}
        return [cidr.parse_prefix(ip["address"]) for ip in prev_result.get("ips") or []]
    except (CNIError, ValueError) as error:
        args.note(f"DEL goes on without prevResult, which cannot be read: {error}")
        return []


def remove_rules(args: Args, ends: Ends, attachment: Attachment, addresses: list[Prefix]) -> None:
    """Take away the rules of both kinds, whoever wrote them, and with whatever program."""
    attempts = Attempts(f"remove rules of {attachment.alias()}")
    attempts.run(_stop_masquerading, args, ends, attachment, addresses)
    attempts.run(_stop_mac_check, args, attachment)
    attempts.finish()


def _stop_mac_check(args: Args, attachment: Attachment) -> None:
    from cni_flannel.kernel import macspoof  # rarely asked for

    macspoof.teardown(attachment.container_id, attachment.ifname, args.environ)


def _stop_masquerading(
    args: Args, ends: Ends, attachment: Attachment, addresses: list[Prefix]
) -> None:
    """The container's chain goes only if no sibling interface uses it."""
    from cni_flannel.kernel import masq  # most nodes leave masquerading to the daemon

    known = addresses if links.has_sibling(ends.host, attachment) else None
    masq.teardown(attachment.network, args.container_id, args.ifname, args.environ, known)


def collect(args: Args, conf: RemovalConf, ipam: Plugin | None) -> None:
    """GC: remove links and rules of attachments that are not listed, then let IPAM do the same.

    A list that is absent proves nothing dead, and a veth lives only as long as its namespace:
    then links and rules are left alone, and IPAM is asked for what it can prove dead.
    """
    from ipam.verify import valid_attachments  # DEL does not pay for GC

    attempts = Attempts(f"collect garbage of network {conf.name}")
    valid = valid_attachments(args.conf)
    if valid is not None:
        with Ends() as ends:
            attempts.run(_collect_links, args, ends, conf.name, valid)
        attempts.run(_collect_masquerade, args, conf.name, valid)
    if ipam is not None:
        if conf.ipam_type == HOST_LOCAL:
            attempts.run(_forget_doomed, args, conf)
        attempts.run(ipam.cmd_gc, args)
    attempts.finish()


def _forget_doomed(args: Args, conf: RemovalConf) -> None:
    """Before their leases go: then the next pod may have the address.

    Where the namespace is gone no link tells of an attachment any more, but its lease does.
    """
    doomed = host_local.doomed(args)
    attempts = Attempts("forget those whose leases go")
    if doomed:
        with Ends() as ends:
            addresses = [cidr.parse_address(lease.name) for lease in doomed]
            attempts.run(ends.drop, *_forget(ends, None, conf.bridge, addresses))
    for owner in sorted({lease.owner for lease in doomed if lease.owner is not None}):
        attempts.run(_stop_mac_check, args, Attachment(conf.name, *owner))
    attempts.finish()


def _collect_links(args: Args, ends: Ends, network: str, valid: set[tuple[str, str]]) -> None:
    """All of them at once: the kernel's wait is the same for one and for a hundred."""
    from netlink import bulk  # DEL does not pay for GC

    attempts = Attempts("remove stale links")
    stale = links.stale(ends.host, network, valid)
    for link in stale:
        args.note(f"GC removes {link.name} of {link.alias}")
    deletions = [bulk.Deletion(link.index) for link in stale]
    bulk.delete(ends.host, deletions)
    for link, deletion in zip(stale, deletions, strict=True):
        attempts.run(_end_of_link, args, link, deletion.error)
    attempts.finish()


def _end_of_link(args: Args, link: Link, error: OSError | None) -> None:
    if error is not None:
        raise error
    attachment = parse_alias(link.alias)
    if attachment is not None:
        _stop_mac_check(args, attachment)


def _collect_masquerade(args: Args, network: str, valid: set[tuple[str, str]]) -> None:
    from cni_flannel.kernel import masq  # most nodes leave masquerading to the daemon

    masq.collect(network, valid, args.environ)
