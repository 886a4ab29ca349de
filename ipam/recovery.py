"""Leases whose files have vanished while their pods live: found again, and written anew.

Somebody has emptied the folder, or a power loss a file. Who knows better: the index, which says who
had an address and in which namespace; libcni's cached results, which say the same of what Go's
plugins attached; and the kernel, which has the attachment's name as the alias of its host veth,
and the addresses behind it. A lease comes back if a pod has its address at this moment. An address
behind a veth that bears no name of ours is given to nobody while it is there; an entry of the index
without an owner notes it, so that the next ADD looks again.

Imported only when the index knows of leases that are gone, or is gone itself.
"""

from __future__ import annotations

import os

from cni import files, wire
from cni.attachment import parse_alias
from cni.cidr import parse_address, parse_prefix
from ipam.index import NOBODY, Entry
from netlink import netns
from netlink.handle import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Any

    from cni.cidr import Address
    from ipam.index import Owner
    from ipam.ranges import RangeSet
    from ipam.store import Store

    Claim = tuple[Owner, Entry]


def restore(
    store: Store,
    claims: list[Claim] | None,
    range_sets: Collection[RangeSet],
    network: tuple[str, str],
    note: Callable[[str], None],
) -> list[Address]:
    """Write leases anew; return the addresses that are in use, and nobody knows by whom.

    `claims` are the index's entries that no lease file bears out, None without an index; `network`
    is its name, and where libcni keeps results.
    """
    known = [claim for claim in claims or () if claim[1].netns_id]
    came_back = [_restore(store, owner, _present(entry), note) for owner, entry in known]
    if claims is not None and len(known) == len(claims) and not any(came_back):
        return []  # whoever had the others is gone: another program has deleted their leases
    for owner, entry in _cached(*network):
        if not store.held(owner):
            _restore(store, owner, _present(entry), note)
    nameless: list[Address] = []
    try:
        behind = list(_behind_veths(store, network[0]))
    except OSError as error:
        note(f"could not ask the kernel for the addresses of pods: {error}")
        behind = []
    for owner, addresses in behind:
        inside = [one for one in addresses if any(each.range_of(one) for each in range_sets)]
        if owner != NOBODY:
            _restore(store, owner, inside, note)
        else:
            nameless += [one for one in inside if store.is_free(str(one))]
    return nameless


def revive(store: Store, name: str) -> bool:
    """Whether an empty lease file is a living pod's: then it says so again."""
    for owner, entry in store.index.entries():
        if entry.netns_id and name in entry.addresses:
            return name in map(str, _present(entry)) and store.put_back(name, owner)
    return False


def _restore(
    store: Store, owner: Owner, addresses: Iterable[Address], note: Callable[[str], None]
) -> bool:
    """Write what is missing of an attachment's leases; whether something was."""
    names = [str(address) for address in addresses if store.put_back(str(address), owner)]
    if names:
        whose = " ".join(owner).strip()
        note(f"restored {', '.join(names)} of {whose}: the pod has it, and its lease had vanished")
    return bool(names)


def _present(entry: Entry) -> list[Address]:
    """Those of an entry's addresses that are in its namespace now; none if that is gone."""
    try:
        fd = netns.open(entry.netns_path)
    except (OSError, ValueError):
        return []
    try:
        found = os.fstat(fd)
        if entry.netns_id not in ("", f"{found.st_dev}:{found.st_ino}"):
            return []
        with Handle(fd) as pod:
            there = {str(one.prefix.address) for one in pod.addresses()}
    except OSError:
        return []
    finally:
        os.close(fd)
    return [parse_address(text) for text in entry.addresses if text in there]


def _behind_veths(store: Store, network: str) -> Iterator[tuple[Owner, list[Address]]]:
    """Give the addresses behind the host's veths with their holders; NOBODY where none is named."""
    with Handle() as host:
        for link in host.links(kind="veth"):
            named = parse_alias(link.alias)
            if named is not None and named.network != network:
                continue
            owner = NOBODY if named is None else (named.container_id, named.ifname)
            if link.link_netnsid is None or (named is not None and store.held(owner)):
                continue
            found = host.addresses(link.link, nsid=link.link_netnsid)
            yield owner, [one.prefix.address for one in found]


def _cached(network: str, results_dir: str) -> Iterator[Claim]:
    """Give what libcni remembers of the network's attachments."""
    try:
        names = [name for name in os.listdir(results_dir) if name.startswith(f"{network}-")]
    except OSError:
        return
    for name in names:
        try:
            claim = _claim(network, wire.loads(files.read(f"{results_dir}/{name}")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
        if claim is not None:
            yield claim


def _claim(network: str, cached: Any) -> Claim | None:
    """Read libcni's cached attachment; raises what one that is none deserves."""
    if cached["networkName"] != network:
        return None
    result = cached["result"]
    found = [ip["address"] for ip in result.get("ips") or ()]
    found += [result[key]["ip"] for key in ("ip4", "ip6") if result.get(key)]  # before 0.3.0
    addresses = [str(parse_prefix(text).address) for text in found]
    return (cached["containerId"], cached["ifName"]), Entry(addresses, "", cached["netns"])
