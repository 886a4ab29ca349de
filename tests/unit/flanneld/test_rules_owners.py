"""Whose a rule is, by the networks that it names."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from flanneld.rules import ownership
from flanneld.rules.ownership import Rule

OURS = [ip_network("10.244.0.0/16")]


@pytest.mark.parametrize(
    ("networks", "is_ours"),
    [
        ([], True),
        (["10.244.0.0/16"], True),
        (["10.244.7.0/24"], True),
        (["10.0.0.0/8"], True),
        (["10.9.0.0/16"], False),
        (["10.9.0.0/16", "224.0.0.0/4"], False),
        (["224.0.0.0/4"], True),  # that says nothing of whose it is
        (["ff00::/8"], True),
    ],
)
def test_a_rule_that_names(networks: list[str], is_ours: bool) -> None:  # noqa: FBT001 - a column
    rule = Rule("-A X", tuple(map(ip_network, networks)))
    expected = (["-A X"], []) if is_ours else ([], ["-A X"])
    assert ownership.part([rule], ["-A Y"], OURS) == expected
