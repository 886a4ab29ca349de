"""Keys and values of a store: Go's bytes, both ways, and refusals that show what is wrong."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld.lease import Attributes, Lease
from flanneld.subnet import keys
from flanneld.subnet.keys import BadLease

P4, P6 = IPv4Address("192.168.64.3"), IPv6Address("fd00::3")
VXLAN = {"VNI": 1, "VtepMAC": "c6:d2:32:6f:8f:44"}

VALUES = [
    (Attributes(P4), '{"PublicIP":"192.168.64.3","PublicIPv6":null}'),
    (
        Attributes(P4, backend_type="host-gw"),
        '{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"host-gw"}',
    ),
    (
        Attributes(P4, backend_type="vxlan", backend_data=VXLAN),
        (
            '{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan",'
            '"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}'
        ),
    ),
    (
        Attributes(P4, P6, "vxlan", VXLAN, VXLAN),
        (
            '{"PublicIP":"192.168.64.3","PublicIPv6":"fd00::3","BackendType":"vxlan",'
            '"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},'
            '"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}'
        ),
    ),
    (Attributes(None, P6), '{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::3"}'),
]
KEYS = [
    (Lease(IPv4Network("10.12.13.0/24"), None), "10.12.13.0-24"),
    (
        Lease(IPv4Network("10.12.13.0/24"), IPv6Network("fd00:12:13::/56")),
        "10.12.13.0-24&fd00:12:13::-56",
    ),
    (Lease(None, IPv6Network("fd00:12:13::/56")), "0.0.0.0-0&fd00:12:13::-56"),
]


@pytest.mark.parametrize(("attributes", "text"), VALUES)
def test_values(attributes: Attributes, text: str) -> None:
    assert keys.value(attributes) == text.encode()
    assert keys.attributes(text.encode()) == attributes


@pytest.mark.parametrize(("lease", "text"), KEYS)
def test_keys(lease: Lease, text: str) -> None:
    assert lease.key == text
    assert keys.subnets(text) == (lease.subnet, lease.subnet6)


def test_reading_is_as_lenient_as_go() -> None:
    text = b'{"publicIP":"192.168.64.3","BACKENDTYPE":"udp","Other":{},"BackendData":null}'
    assert keys.attributes(text) == Attributes(P4, backend_type="udp")


@pytest.mark.parametrize(
    "text",
    [
        *("", "foo", "10.12.13.0", "10.12.13.0-", "10.12.13-24", "10.12.13.0-33", "10.12.13.0-32"),
        *("10.12.13.5-24", "256.12.13.0-24", "0.0.0.0-0", "10.12.13.0-24&", "10.12.13.0-24&x-64"),
        *("10.12.13.0-24&fd00::-128", "10.12.13.0-24&fd00::1-64", "10.12.13.0-24/extra"),
        # What only ends in a key, or is another spelling of one:
        *("/10.12.13.0-24", "old/10.12.13.0-24", "x10.12.13.0-24", " 10.12.13.0-24"),
        *("10.12.13.0-024", "10.12.13.0-\u0662\u0664", "10.12.13.0-24\n", "10.012.13.0-24"),
        *("10.12.13.0-24&fd00:0:0:0::-64", "10.12.13.0-24&FD00::-64", "1.2.3.0-24&::-0"),
        *("10.12.13.0-" + "9" * 5000, "9" * 5000, "\ud800", "10.12.13.0-24&fd00::-64&"),
    ],
)
def test_a_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadLease, match="key") as refusal:
        keys.subnets(text)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"bar", b"[]", b"7", b"{}", b'{"PublicIP":""}', b'{"PublicIP":7}', b"\xff"),
        *(
            b'{"PublicIP":"fd00::3"}',
            b'{"PublicIPv6":"10.0.0.1"}',
            b'{"PublicIP":"10.0.0.3","BackendType":7}',
        ),
        *(
            b'{"PublicIP":"10.0.0.3","BackendData":"x"}',
            b'{"PublicIP":"10.0.0.3","BackendV6Data":[]}',
        ),
        *(b'{"PublicIP":"0.0.0.0"}', b'{"PublicIP":"224.0.0.5","PublicIPv6":"::1"}'),
        # What a reader could fall over, or a writer could not write again:
        *(
            b"[" * 2000,
            b"{" * 2000,
            b'{"PublicIP":"10.0.0.3","BackendData":' * 985 + b"1" + b"}" * 985,
        ),
        *(
            b"[" * 100_000,
            b'{"PublicIP":"' + b"x" * (1 << 20) + b'"}',
            b'{"PublicIP":"10.0.0.3","BackendData":{"A":NaN}}',
        ),
        *(
            b'{"PublicIP":"10.0.0.3","BackendType":"\\ud800"}',
            b'{"PublicIP":"10.0.0.3","BackendData":{"\\udfff":1}}',
            b'{"PublicIP":"10.0.0.3","BackendType":"a\\u001b"}',
        ),
        *(
            b'{"PublicIP":"10.0.0.3","BackendData":{"A":1e999}}',
            b'{"PublicIP":"10.0.0.3","BackendData":{"A":' + b"9" * 5000 + b"}}",
            b"\xef\xbb\xbf" + b'{"PublicIP":"10.0.0.3"}',
        ),
    ],
)
def test_a_value_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(BadLease, match="value") as refusal:
        keys.attributes(raw)
    assert len(str(refusal.value)) < 1000


@given(st.text(), st.binary())
def test_anything_is_a_lease_or_refused(key: str, raw: bytes) -> None:
    try:
        lease = keys.lease(key, raw)
    except BadLease:
        return
    assert key == lease.key
