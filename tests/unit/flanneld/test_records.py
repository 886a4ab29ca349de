"""etcd's records as leases: what events make of a snapshot is what the next snapshot would say."""

from __future__ import annotations

from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from flanneld.lease import Lease
from flanneld.subnet import records

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "/coreos.com/network/subnets/"
KEYS = st.sampled_from(
    [
        *("10.244.1.0-24", "10.244.2.0-24", "10.244.2.0-24&fd00:0:0:2::-64"),
        *("0.0.0.0-0&fd00:0:0:3::-64", "nonsense", "10.244.1.7-24"),
    ]
)
VALUES = st.sampled_from(
    [
        *(b'{"PublicIP":"192.0.2.1"}', b'{"PublicIP":"192.0.2.2","BackendType":"host-gw"}'),
        *(b'{"PublicIP":"192.0.2.1","PublicIPv6":"fd01::1"}', b"nonsense", b""),
    ]
)


def kv(key: str, value: bytes, revision: int = 1) -> Any:
    return SimpleNamespace(
        key=(PREFIX + key).encode(),
        value=value,
        create_revision=revision,
        mod_revision=revision,
        lease=7,
    )


def read(kvs: Iterable[Any]) -> list[records.Entry]:
    return records.entries(kvs, PREFIX)


@given(st.dictionaries(KEYS, VALUES), st.lists(st.tuples(KEYS, VALUES | st.none()), max_size=20))
def test_events_lead_to_what_a_snapshot_says(
    before: dict[str, bytes], changes: list[tuple[str, bytes | None]]
) -> None:
    seen = records.Seen(read(kv(key, value) for key, value in before.items()), PREFIX)
    leases, faults = seen.snapshot.leases, seen.snapshot.faults
    readable, there = dict(before), dict(before)
    for key, value in changes:
        event = SimpleNamespace(type=0 if value is not None else 1, kv=kv(key, value or b""))
        known = dict(leases), dict(faults)
        assert seen.apply([event]) == ((leases, faults) != known)
        if value is None:
            readable.pop(key, None)
            there.pop(key, None)
            continue
        there[key] = value
        if not read([kv(key, value)])[0].fault or key not in leases:
            readable[key] = value  # a value that cannot be read leaves what was known
    after = read(kv(key, value) for key, value in readable.items())
    assert leases == {entry.key: entry.lease for entry in after if not entry.fault}
    assert faults.keys() == {
        entry.key for entry in read(kv(key, value) for key, value in there.items()) if entry.fault
    }


def test_a_key_that_only_ends_in_a_lease_s_is_none() -> None:
    """Neither put nor deleted does it touch the lease."""
    good = kv("10.244.1.0-24", b'{"PublicIP":"192.0.2.1"}')
    seen = records.Seen(read([good]), PREFIX)
    for key in ("old/10.244.1.0-24", "x10.244.1.0-24", "10.244.1.0-024"):
        stray = kv(key, b'{"PublicIP":"192.0.2.9"}')
        assert seen.apply([SimpleNamespace(type=0, kv=stray)])
        assert key in seen.snapshot.faults[key]
        assert seen.apply([SimpleNamespace(type=1, kv=stray)])
    assert not seen.snapshot.faults
    assert str(seen.snapshot.leases["10.244.1.0-24"].attributes.public_ip) == "192.0.2.1"


def test_the_subnets_of_what_cannot_be_read_are_known() -> None:
    (entry,) = read([kv("10.244.1.0-24", b"nonsense")])
    assert entry.lease == Lease(IPv4Network("10.244.1.0/24"), None)
    (entry,) = read([kv("nonsense", b"")])
    assert entry.lease is None


def test_an_entry_has_what_a_transaction_wants() -> None:
    (entry,) = read([kv("10.244.1.0-24", b'{"PublicIP":"192.0.2.1"}', 42)])
    assert (entry.key, entry.modified, entry.lease_id) == ("10.244.1.0-24", 42, 7)
    assert entry.lease is not None
    assert entry.lease.since == 42
    wanted = records.unchanged(entry, PREFIX)
    assert (wanted.key, wanted.mod_revision) == (f"{PREFIX}10.244.1.0-24".encode(), 42)
