"""Whether a key still says what its node has written."""

from __future__ import annotations

from dataclasses import replace

from flanneld.subnet import holding
from tests.unit.flanneld.cluster import lease

HELD = lease(1)
SAID = (HELD.attributes,)


def test_what_was_written_is_there() -> None:
    assert holding.is_own(HELD, SAID)
    assert not holding.usurper(HELD, HELD)
    assert not holding.altered(HELD, SAID)
    assert not holding.altered(lease(2), (*SAID, lease(2).attributes))


def test_another_s_address() -> None:
    assert not holding.is_own(lease(2), SAID)


def test_another_s_mac() -> None:
    twin = replace(
        HELD,
        attributes=replace(HELD.attributes, backend_data=lease(2).attributes.backend_data),
    )
    assert holding.is_own(twin, SAID)
    assert "with the MAC" in holding.usurper(twin, HELD)


def test_a_value_that_leads_nobody_here() -> None:
    """Of a long one the beginning is shown."""
    data = {"VNI": 7, "x": "y" * 1000}
    odd = replace(HELD, attributes=replace(HELD.attributes, backend_data=data))
    assert not holding.usurper(odd, HELD)
    assert holding.altered(odd, SAID).startswith('somebody has written "{"PublicIP":"192.168.9.1"')
    assert len(holding.altered(odd, SAID)) < 300
