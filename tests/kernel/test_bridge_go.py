"""Conf by conf against the Go plugin: the same conf on two nodes, and everything compared.

What is compared: the result, and of host and pod every link with its properties, the addresses,
routes, switches and packet filter rules. What differs on purpose is named below with its reason;
anything else fails the test.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    GO_BRIDGE,
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    host_local,
    make_conf,
    needs_go,
)
from tests.kernel.bridgestate import state

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Node

pytestmark = [*MARKS, needs_go]

DUAL = host_local(SUBNET, SUBNET6)
MAC = "0a:11:22:33:44:55"
GW = "10.88.1.1"

# The conf's difference from a plain gateway conf in cniVersion 1.0.0, and CNI_ARGS.
CONFS: dict[str, tuple[dict[str, Any], str]] = {
    "gateway": ({}, ""),
    "no gateway": ({"isGateway": False}, ""),
    "default gateway": ({"isGateway": False, "isDefaultGateway": True}, ""),
    "default gateway, dual-stack": ({"isDefaultGateway": True, "ipam": DUAL}, ""),
    "default route from IPAM already": (
        {
            "isDefaultGateway": True,
            "ipam": host_local(SUBNET, routes=[{"dst": "0.0.0.0/0", "gw": "10.88.1.77"}]),
        },
        "",
    ),
    "default route from IPAM without gateway": (
        {"isGateway": True, "ipam": host_local(SUBNET, routes=[{"dst": "0.0.0.0/0"}])},
        "",
    ),
    "force address": ({"forceAddress": True}, ""),
    "masquerade": ({"ipMasq": True}, ""),
    "masquerade, dual-stack": ({"ipMasq": True, "ipam": DUAL}, ""),
    "masquerade without gateway": ({"ipMasq": True, "isGateway": False}, ""),
    "mtu": ({"mtu": 1402}, ""),
    "hairpin": ({"hairpinMode": True}, ""),
    "promiscuous": ({"promiscMode": True}, ""),
    "another bridge": ({"bridge": "br-x"}, ""),
    "mac by CNI_ARGS": ({}, f"IgnoreUnknown=1;MAC={MAC}"),
    "mac by args": ({"args": {"cni": {"mac": MAC}}}, "MAC=0a:00:00:00:00:01"),
    "mac by runtimeConfig": (
        {"args": {"cni": {"mac": "0a:00:00:00:00:02"}}, "runtimeConfig": {"mac": MAC}},
        "MAC=0a:00:00:00:00:01",
    ),
    "address by CNI_ARGS": ({}, "IgnoreUnknown=1;IP=10.88.1.99"),
    "address by args": ({"args": {"cni": {"ips": ["10.88.1.98/24"]}}}, ""),
    "address by runtimeConfig": ({"runtimeConfig": {"ips": ["10.88.1.97"]}}, ""),
    "source MAC check": ({"macspoofchk": True}, ""),
    "duplicate address detection, IPv4 only": ({"enabledad": True}, ""),
    "IPv6 only": ({"isDefaultGateway": True, "ipam": host_local(SUBNET6)}, ""),
    "dual-stack, no gateway": ({"isGateway": False, "ipam": DUAL}, ""),
    "layer 2": ({"isGateway": False, "ipam": {}}, ""),
    "layer 2, ipam absent": ({"ipam": None, "ipMasq": True}, ""),
    "layer 2, with dns": ({"isGateway": False, "ipam": {}, "dns": {"nameservers": [GW]}}, ""),
    "dns": (
        {"dns": {"nameservers": [GW], "domain": "d", "search": ["d", "e"], "options": ["o"]}},
        "",
    ),
    "dns of IPAM": ({"ipam": host_local(SUBNET, resolvConf="/run/resolv")}, ""),
    "dns of the conf instead of IPAM's": (
        {"ipam": host_local(SUBNET, resolvConf="/run/resolv"), "dns": {"domain": "mine"}},
        "",
    ),
    "static routes": (
        {
            "ipam": host_local(
                SUBNET,
                routes=[
                    {"dst": "10.96.0.0/12"},
                    {"dst": "192.168.7.0/24", "gw": "10.88.1.9"},
                    {"dst": "10.96.0.0/12", "gw": "10.88.1.8"},
                ],
            ),
        },
        "",
    ),
    "static routes, dual-stack": (
        {
            "isDefaultGateway": True,
            "ipam": {
                **DUAL,
                "routes": [{"dst": "fd01::/48"}, {"dst": "fd02::/48", "gw": "fd00:88::9"}],
            },
        },
        "",
    ),
    "ranges": (
        {
            "ipam": {
                "type": "host-local",
                "ranges": [
                    [
                        {
                            "subnet": SUBNET,
                            "rangeStart": "10.88.1.20",
                            "rangeEnd": "10.88.1.30",
                            "gateway": "10.88.1.254",
                        }
                    ]
                ],
            }
        },
        "",
    ),
    "two addresses of one family": (
        {"isDefaultGateway": True, "forceAddress": True, "ipam": host_local(SUBNET, SUBNET6)},
        "",
    ),
    "legacy ipam": ({"ipam": {"type": "host-local", "subnet": SUBNET}}, ""),
    "static ipam": (
        {
            "isGateway": True,
            "ipam": {
                "type": "static",
                "addresses": [{"address": "10.88.1.5/24"}, {"address": "fd00:88::5/64"}],
                "routes": [{"dst": "0.0.0.0/0", "gw": GW}],
            },
        },
        "",
    ),
    "cniVersion 0.2.0": ({"cniVersion": "0.2.0"}, ""),
    "cniVersion 0.3.1": ({"cniVersion": "0.3.1", "ipam": DUAL}, ""),
    "cniVersion 0.4.0": ({"cniVersion": "0.4.0", "isDefaultGateway": True}, ""),
    "no cniVersion": ({"cniVersion": None}, ""),
}


# -------------------------------------------------------------------------- what differs on purpose

# (key, our value, Go's value) as patterns, values as Python prints them, and the reason.
_AT_ONCE = "an IPv6 address is usable at once"
_NOT_ITS_FAMILY = "the switches of a family without addresses are left alone"
_NEWER = "as later releases of Go's plugin, which this one is older than"
DELIBERATE: list[tuple[str, str, str, str]] = [
    (r"(host|pod) \S+ txqlen", "1000", "None", _NEWER),
    (
        r"host veth ifalias",
        r"'flannel:net:c1:eth0( \(rules\))?'",
        "None",
        "the alias proves the link ours",
    ),
    (r"host bridge ifalias", "'flannel:bridge'", "None", "the alias proves the bridge ours"),
    (r"pod eth0 ipv6/accept_ra", "'0'", "'1'", "advertised addresses do not join static ones"),
    (r"host neighbours", r".*10\.88\.1|.*fd00:88", r"\[\]", "a reused address is found at once"),
    (r"(host|pod) \S+ addr_assign_type", "'3'", "'[13]'", "no udev rewrites an explicit MAC"),
    (r"(host|pod) \S+ nodad \S+", "True", "False", _AT_ONCE),
    (r"host \S+ tentative \S+", "False", "True", _AT_ONCE),
    (r"host route dst fd00:88::1? .* local .*", "True", "None", _AT_ONCE),
    (r"host bridge ipv6/accept_dad", "'0'", "'1'", _AT_ONCE),
    (r"pod eth0 ipv6/accept_dad", "'1'", "'0'", _NOT_ITS_FAMILY),
    (r"pod eth0 ipv4/arp_notify", "'0'", "'1'", _NOT_ITS_FAMILY),
    (r"pod eth0 ipv6/keep_addr_on_down", "'1'", "'0'", _NEWER),
    (r"result dns", r"\{.*10\.9\.9\.9.*\}", r"\{\}", _NEWER),
]


def differs(key: str, ours: dict[str, Any], go: dict[str, Any]) -> bool:
    """Whether the two differ at a key although nothing above says why."""
    mine, theirs = ours.get(key), go.get(key)
    return mine != theirs and not any(
        re.fullmatch(pattern, key)
        and re.match(our_pattern, repr(mine))
        and re.match(go_pattern, repr(theirs))
        for pattern, our_pattern, go_pattern, _reason in DELIBERATE
    )


@pytest.mark.parametrize("case", CONFS)
def test_the_same_conf_gives_what_go_s_plugin_gives(
    case: str, new_node: Callable[[], Node]
) -> None:
    keys, cni_args = CONFS[case]
    conf = make_conf(**{"cniVersion": "1.0.0", **keys})
    env: dict[str, str | None] = {"CNI_ARGS": cni_args} if cni_args else {}
    views = []
    for plugin in ("bridge", GO_BRIDGE):
        node = new_node()
        node.write("/run/resolv", "nameserver 10.9.9.9\nsearch of.ipam\noptions ndots:3\n")
        result = add(node, conf, plugin=plugin, env=env).result
        views.append(state(node, result, conf.get("bridge", "cni0"), MAC))
    ours, go = views
    assert {key: (ours.get(key), go.get(key)) for key in ours | go if differs(key, ours, go)} == {}
