"""etcd's records as leases: what events make of a snapshot is what the next snapshot would say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flanneld.subnet import records

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
    return SimpleNamespace(key=(PREFIX + key).encode(), value=value, mod_revision=revision, lease=7)


@given(st.dictionaries(KEYS, VALUES), st.lists(st.tuples(KEYS, VALUES | st.none()), max_size=20))
def test_events_lead_to_what_a_snapshot_says(
    before: dict[str, bytes], changes: list[tuple[str, bytes | None]]
) -> None:
    leases = {
        entry.lease.key: entry.lease
        for entry in records.entries(kv(key, value) for key, value in before.items())
    }
    readable = dict(before)
    for key, value in changes:
        event = SimpleNamespace(type=0 if value is not None else 1, kv=kv(key, value or b""))
        known = dict(leases)
        assert records.apply([event], leases) == (leases != known)
        if value is None:
            readable.pop(key, None)
        elif records.entries([kv(key, value)]) or key not in readable:
            readable[key] = value  # a value that cannot be read leaves what was known
    after = records.entries(kv(key, value) for key, value in readable.items())
    assert leases == {entry.lease.key: entry.lease for entry in after}


def test_an_entry_has_what_a_transaction_wants() -> None:
    (entry,) = records.entries([kv("10.244.1.0-24", b'{"PublicIP":"192.0.2.1"}', 42)])
    assert (entry.key, entry.modified, entry.lease_id) == (f"{PREFIX}10.244.1.0-24", 42, 7)
    wanted = records.unchanged(entry)
    assert (wanted.key, wanted.mod_revision) == (entry.key.encode(), 42)
