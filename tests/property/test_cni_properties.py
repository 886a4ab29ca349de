"""The protocol's pure parts against independent implementations of the same rules."""

from __future__ import annotations

import ipaddress
import json
import math
from typing import Any

import netaddr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni import cidr, cniargs, version, wire
from cni.attachment import ALIAS_BYTES, Attachment, parse_alias
from cni.errors import CNIError
from cni.validate import is_name

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


# --------------------------------------------------------------------------------------------- wire


@given(VALUES, st.booleans())
def test_every_document_is_read_as_json_reads_it(value: object, ascii_only: bool) -> None:  # noqa: FBT001
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert wire.loads(text) == value
    assert wire.loads(text.encode()) == value


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    assert wire.loads(wire.dumps(value)) == value
    assert wire.loads(wire.dumps_pretty(value)) == value
    assert wire.dumps(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert wire.dumps_pretty(value) == json.dumps(value, indent=4)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_whole_float_becomes_the_integer_that_go_prints(value: float) -> None:
    got = wire.loads(json.dumps(value))
    assert got == value
    whole = value.is_integer() and abs(value) < 1e21
    assert isinstance(got, int if whole else float)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_a_value_or_a_value_error(raw: bytes) -> None:
    assert_reads_like_json(raw)


@given(VALUES, st.data())
def test_a_damaged_document_is_a_value_or_a_value_error(value: object, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(value, ensure_ascii=False), "utf-8")
    place = data.draw(st.integers(0, len(raw)))
    kind = data.draw(st.sampled_from(["cut", "drop", "put"]))
    if kind == "cut":
        del raw[place:]
    elif kind == "drop":
        del raw[place : place + 1]
    else:
        raw.insert(place, data.draw(st.integers(0, 255)))
    assert_reads_like_json(bytes(raw))


def assert_reads_like_json(raw: bytes) -> None:
    """Read it as json does, except for what Go refuses: NaN and numbers that do not fit."""
    try:
        expected = json.loads(raw.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        with pytest.raises(ValueError, match=r"."):
            wire.loads(raw)
        return
    if holds_infinity(expected):
        with pytest.raises(ValueError, match="does not fit"):
            wire.loads(raw)
    elif not holds_surrogate(expected):
        assert wire.loads(raw) == expected


def refuse(name: str) -> None:
    raise ValueError(name)


def holds_infinity(value: object) -> bool:
    if isinstance(value, float):
        return math.isinf(value)
    if isinstance(value, list):
        return any(map(holds_infinity, value))
    return isinstance(value, dict) and any(map(holds_infinity, value.values()))


def holds_surrogate(value: object) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in json.dumps(value, ensure_ascii=False))


@given(st.dictionaries(st.sampled_from(["hostPort", "HOSTPORT", "hostport", "x", "X"]), SCALARS))
def test_canonical_keeps_unknown_keys_and_the_last_spelling(obj: dict[str, Any]) -> None:
    out = wire.canonical(obj, ("hostPort",))
    assert {key: out[key] for key in out if key != "hostPort"} == {
        key: value for key, value in obj.items() if key in ("x", "X")
    }
    spellings = [value for key, value in obj.items() if key.lower() == "hostport"]
    given_values = [value for value in spellings if value is not None]
    assert out.get("hostPort") == (given_values[-1] if given_values else None)


# --------------------------------------------------------------------------------------------- cidr

ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
NETWORKS = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)) | st.tuples(
    st.ip_addresses(v=6), st.integers(0, 128)
)
SHORT_V6 = st.lists(st.sampled_from(["0", "1", "ff", "abcd", ""]), min_size=2, max_size=9).map(
    ":".join
)
ALMOST = st.text(alphabet="0123456789abcdef.:/%x ", max_size=24) | SHORT_V6


def unmapped(address: Any) -> Any:
    return getattr(address, "ipv4_mapped", None) or address


@given(ADDRESSES)
def test_an_address_is_what_ipaddress_and_netaddr_say(address: Any) -> None:
    ours, theirs = cidr.parse_address(str(address)), unmapped(address)
    assert (ours.family, ours.value) == (theirs.version, int(theirs))
    assert ours.packed == theirs.packed
    assert str(ours) == str(
        netaddr.IPAddress(int(theirs), theirs.version).format(netaddr.ipv6_compact)
    ) or (
        ours.family == 6 and ours.value >> 32 == 0
    )  # netaddr prints the last 32 bits of ::/96 dotted
    assert str(ours) == str(theirs)
    assert cidr.parse_address(theirs.exploded) == ours


@given(ALMOST)
def test_ipaddress_accepts_the_same_addresses(text: str) -> None:
    try:
        expected = unmapped(ipaddress.ip_address(text))
    except ValueError:
        with pytest.raises(ValueError, match="invalid IP address"):
            cidr.parse_address(text)
        return
    if "%" in text:  # Go knows no zones here
        with pytest.raises(ValueError, match="invalid IP address"):
            cidr.parse_address(text)
    else:
        assert str(cidr.parse_address(text)) == str(expected)


@given(ALMOST)
def test_any_text_is_a_prefix_or_a_value_error(text: str) -> None:
    try:
        prefix = cidr.parse_prefix(text)
    except ValueError as error:
        assert str(error) == "invalid CIDR address: " + text  # noqa: PT017
    else:
        assert cidr.parse_prefix(str(prefix)) == prefix


@given(NETWORKS, ADDRESSES)
def test_a_prefix_is_what_ipaddress_and_netaddr_say(network: Any, probe: Any) -> None:
    address, length = network
    text = f"{address}/{length}"
    if unmapped(address) is not address:
        return
    ours = cidr.parse_prefix(text)
    theirs = ipaddress.ip_interface(text)
    assert str(ours) == str(theirs)
    assert str(ours.network) == str(theirs.network)
    assert ours.first.value == int(theirs.network.network_address)
    assert ours.last.value == int(theirs.network.broadcast_address)
    other = netaddr.IPNetwork(text)
    assert (ours.first.value, ours.last.value) == (other.first, other.last)
    point = cidr.parse_address(str(probe))
    expected = point.family == ours.family and point.value in range(other.first, other.last + 1)
    assert ours.contains(point) == expected


@given(NETWORKS, NETWORKS)
def test_overlap_is_symmetric_and_agrees_with_ipaddress(one: Any, two: Any) -> None:
    nets = [
        ipaddress.ip_network(f"{address}/{length}", strict=False) for address, length in (one, two)
    ]
    ours = [
        cidr.Prefix(cidr.Address(net.version, int(net.network_address)), net.prefixlen)
        for net in nets
    ]
    assert ours[0].overlaps(ours[1]) == ours[1].overlaps(ours[0])
    if nets[0].version == nets[1].version:
        assert ours[0].overlaps(ours[1]) == nets[0].overlaps(nets[1])
    else:
        assert not ours[0].overlaps(ours[1])


@given(ADDRESSES, st.integers(-(2**33), 2**33))
def test_counting_agrees_with_ipaddress(address: Any, n: int) -> None:
    ours = cidr.Address(address.version, int(address))
    try:
        expected = address + n
    except ipaddress.AddressValueError:
        with pytest.raises(OverflowError):
            ours + n
    else:
        assert (ours + n).value == int(expected)


# ----------------------------------------------------------------------------------------- versions

DNS = st.fixed_dictionaries(
    {},
    optional={
        "nameservers": st.lists(st.text(min_size=1), min_size=1, max_size=2),
        "domain": st.text(min_size=1),
        "search": st.lists(st.text(min_size=1), min_size=1, max_size=2),
        "options": st.lists(st.text(min_size=1), min_size=1, max_size=2),
    },
)
PREFIX_TEXTS = NETWORKS.map(
    lambda pair: str(cidr.Prefix(cidr.Address(pair[0].version, int(pair[0])), pair[1]))
).filter(lambda text: "::ffff:" not in text)
ADDRESS_TEXTS = ADDRESSES.map(lambda address: str(cidr.parse_address(str(address))))
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "interfaces": st.lists(
            st.fixed_dictionaries(
                {"name": st.text(min_size=1)},
                optional={
                    "mac": st.text(min_size=1),
                    "mtu": st.integers(1, 65535),
                    "sandbox": st.text(min_size=1),
                    "pciID": st.text(min_size=1),
                    "socketPath": st.text(min_size=1),
                },
            ),
            min_size=1,
            max_size=3,
        ),
        "ips": st.lists(
            st.fixed_dictionaries(
                {"address": PREFIX_TEXTS},
                optional={"gateway": ADDRESS_TEXTS, "interface": st.integers(0, 3)},
            ),
            min_size=1,
            max_size=3,
        ),
        "routes": st.lists(
            st.fixed_dictionaries(
                {"dst": PREFIX_TEXTS},
                optional={
                    "gw": ADDRESS_TEXTS,
                    "mtu": st.integers(0, 65535),
                    "table": st.integers(0, 255),
                    "scope": st.integers(0, 255),
                },
            ),
            min_size=1,
            max_size=3,
        ),
        "dns": DNS.filter(bool),
    },
)


@given(RESULTS)
def test_the_newest_shape_loses_nothing(result: dict[str, Any]) -> None:
    assert version.decode(version.convert(result, "1.1.0"), "1.1.0") == result


@given(RESULTS, st.sampled_from(version.SUPPORTED))
@settings(max_examples=200)
def test_converting_twice_is_converting_once(result: dict[str, Any], wanted: str) -> None:
    try:
        written = version.convert(result, wanted)
    except CNIError:
        assert wanted in ("0.1.0", "0.2.0")
        assert not result.get("ips")
        return
    assert written["cniVersion"] == wanted
    assert wire.loads(wire.dumps_pretty(written)) == written
    read = version.decode(written, wanted)
    assert version.convert(read, wanted) == written


@given(VALUES, st.sampled_from(version.SUPPORTED))
def test_any_result_is_read_or_a_cni_error(value: object, wanted: str) -> None:
    assert_decoding_is_total(value, wanted)


@given(
    st.dictionaries(
        st.sampled_from(["interfaces", "ips", "routes", "dns", "ip4", "ip6", "cniVersion"]), VALUES
    ),
    st.sampled_from(version.SUPPORTED),
)
def test_any_parts_are_read_or_a_cni_error(value: object, wanted: str) -> None:
    assert_decoding_is_total(value, wanted)


def assert_decoding_is_total(value: object, wanted: str) -> None:
    try:
        version.decode(value, wanted)
    except CNIError as error:
        assert error.code == 6  # noqa: PT017


# -------------------------------------------------------------------------------------- identities

NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", fullmatch=True)
IFNAMES = st.text(
    st.characters(exclude_characters="/:\0", exclude_categories=["Z", "C"]), min_size=1
)


@given(NAMES, NAMES, IFNAMES)
def test_an_alias_fits_and_proves_its_attachment(network: str, container: str, ifname: str) -> None:
    attachment = Attachment(network, container, ifname)
    alias = attachment.alias()
    assert len(alias.encode()) <= ALIAS_BYTES
    assert parse_alias(alias) in (attachment, None)
    assert len(attachment.host_veth_name()) == 12


@given(st.text(max_size=10))
def test_names_are_what_the_specs_pattern_says(text: str) -> None:
    import re

    assert is_name(text) == bool(re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", text))


@given(st.text(alphabet="IPMAC=;ignoreUknw1x", max_size=30))
def test_any_cni_args_are_read_or_a_cni_error(text: str) -> None:
    try:
        values = cniargs.parse(text, ("IP", "MAC"))
    except CNIError as error:
        assert error.code == 4  # noqa: PT017
    else:
        assert set(values) <= {"IP", "MAC"}
