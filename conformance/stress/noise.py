"""What `fuzz` throws at a plugin: calls, made of what is right, nearly right and wild.

A call is the environment, stdin, and the files that the plugin reads: subnet.env, the attachment's
state file, leases. Strategies of hypothesis, so that a failure shrinks to the smallest call that
shows it. Paths stay below /run and /var/lib, which are the world's own.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from hypothesis import strategies as st

VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
STATE = "/var/lib/cni/flannel/{}"
LEASE = "/var/lib/cni/networks/{}/{}"

_WORDS = ["", "a", "cbr0", "other", "0", "..", "/", "a/b", "ü", "\n", "x" * 300, "-", "eth0", "null"]
_KEYS = """
cniVersion name type delegate ipam subnetFile dataDir runtimeConfig args dns prevResult ipMasq mtu
bridge isGateway isDefaultGateway forceAddress hairpinMode promiscMode vlan vlanTrunk macspoofchk
enabledad disableContainerInterface portIsolation ipMasqBackend preserveDefaultVlan ranges routes
subnet rangeStart rangeEnd gateway exclude ips ipRanges mac resolvConf cni interfaces address
interface dst gw sandbox version nameservers capabilities subnetFileWait lockTimeout keepAcceptRA
""".split()
_ADDRESSES = [
    *("10.244.1.5/24", "10.244.1.0/24", "10.244.0.0/16", "10.244.1.1", "0.0.0.0/0", "::/0", "::1"),
    *("fd00:f1:0:1::/64", "fd00:f1:0:1::9", "10.244.1.300/24", "10.244.1.0/33", "1.2.3", "::ffff:1.2.3.4"),
    *("10.0.0.0/31", "10.0.0.0/32", "255.255.255.255/0", "fe80::1%eth0", "01.2.3.4/8", "10.244.1.0/-1"),
]
_PATHS = ["/run/x", "/run/flannel/subnet.env", "/var/lib/cni/x", "/run", "/run/none/none", "/run/x/../y"]

words = st.one_of(st.sampled_from(_WORDS), st.text(max_size=8))
numbers = st.one_of(
    st.integers(-2, 3),
    st.sampled_from([68, 1280, 1450, 4094, 4095, 65535, 65536, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30]),
    st.floats(allow_nan=False),
)
addresses = st.sampled_from(_ADDRESSES)
scalars = st.one_of(
    st.none(), st.booleans(), numbers, words, addresses, st.sampled_from(_PATHS), st.sampled_from(VERSIONS)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(_KEYS), words), inner, max_size=4),
    ),
    max_leaves=8,
)


def _known(*keys: str, **own: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of the keys that it may have, mostly of the right kind."""
    rest = {key: values for key in keys}
    return st.fixed_dictionaries({}, optional=rest | {k: v | values for k, v in own.items()})


ranges = _known(subnet=addresses, rangeStart=addresses, rangeEnd=addresses, gateway=addresses)
routes = _known("scope", "table", dst=addresses, gw=addresses, mtu=numbers, priority=numbers)
ipams = _known(
    "exclude",
    type=st.sampled_from(["host-local", "host-local", "static", "nothing"]),
    ranges=st.lists(st.lists(ranges, max_size=2), max_size=2),
    routes=st.lists(routes, max_size=2),
    rangeStart=addresses,
    gateway=addresses,
    resolvConf=st.sampled_from(_PATHS),
)
delegates = _known(
    *("vlan", "vlanTrunk", "macspoofchk", "preserveDefaultVlan", "ipam", "name", "portIsolation"),
    type=st.sampled_from(["bridge", "bridge", "bridge", "loopback", "nothing", "../x"]),
    bridge=st.sampled_from(["cni0", "cni1", "phys0", "lo", "x" * 16, "a b", ""]),
    mtu=numbers,
    isDefaultGateway=st.booleans(),
    isGateway=st.booleans(),
    hairpinMode=st.booleans(),
    promiscMode=st.booleans(),
    forceAddress=st.booleans(),
    ipMasq=st.just(value=False),
    enabledad=st.booleans(),
    disableContainerInterface=st.booleans(),
)
runtime_configs = _known("mac", ips=st.lists(addresses, max_size=2), ipRanges=st.lists(ranges, max_size=2))
results = _known(
    "dns",
    cniVersion=st.sampled_from(VERSIONS),
    interfaces=st.lists(_known(name=words, mac=words, sandbox=words, mtu=numbers), max_size=3),
    ips=st.lists(_known(address=addresses, gateway=addresses, interface=numbers, version=words), max_size=2),
    routes=st.lists(routes, max_size=2),
)
valid = st.lists(_known(containerID=words, ifname=words), max_size=2)
confs = st.fixed_dictionaries(
    {
        "cniVersion": st.sampled_from(VERSIONS) | scalars,
        "name": st.sampled_from(["cbr0"] * 6 + ["other", "", "a/b"]),
        "type": st.just("flannel"),
    },
    optional={
        "delegate": delegates | values,
        "ipam": ipams | values,
        "subnetFile": st.sampled_from(_PATHS),
        "dataDir": st.sampled_from(_PATHS),
        "subnetFileWait": st.sampled_from([0, 0.1]) | words,
        "runtimeConfig": runtime_configs | values,
        "args": _known(cni=_known(ips=st.lists(addresses, max_size=1))) | values,
        "dns": values,
        "prevResult": results | values,
        "cni.dev/valid-attachments": valid | values,
    },
)


@st.composite
def _stdins(draw: st.DrawFn) -> bytes:
    """JSON of a conf, now and then damaged, or any JSON, or any bytes."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.binary(max_size=60))
    document = draw(confs if kind > 1 else values)
    data = json.dumps(document, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if kind in {2, 3} and data:
        place = draw(st.integers(0, len(data) - 1))
        data = data[:place] + draw(st.binary(max_size=3)) + data[place + draw(st.integers(0, 4)) :]
    return data


_LINES = st.one_of(
    st.sampled_from([
        *("FLANNEL_NETWORK=10.244.0.0/16", "FLANNEL_SUBNET=10.244.1.1/24", "FLANNEL_MTU=1450"),
        *("FLANNEL_IPMASQ=true", "FLANNEL_IPV6_NETWORK=fd00:f1::/56", "FLANNEL_IPV6_SUBNET=fd00:f1:0:1::1/64"),
        *("FLANNEL_MTU=0", "FLANNEL_MTU=65536", "FLANNEL_SUBNET=10.9.9.1/24", "FLANNEL_NETWORK=", "# x", "="),
        *("FLANNEL_SUBNET=10.244.1.1/32", "FLANNEL_NETWORK=10.0.0.0/8,10.244.0.0/16", "FLANNEL_IPMASQ=1"),
    ]),
    words,
)
_SUBNET_ENV = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
subnet_envs = st.one_of(
    *[st.just(_SUBNET_ENV.encode())] * 4,
    st.lists(_LINES, max_size=7).map(lambda lines: "\n".join(lines).encode("utf-8", "replace")),
    st.binary(max_size=40),
)
states = st.one_of(
    st.none(),
    st.none(),
    delegates.map(lambda conf: json.dumps({"name": "cbr0", "type": "bridge", **conf}).encode()),
    st.binary(max_size=40),
)
leases = st.dictionaries(
    st.sampled_from(["10.244.1.2", "10.244.1.3", "last_reserved_ip.0", "10.244.1.999", "x"]),
    st.sampled_from([b"", b"cid-fuzz\r\neth0", b"cid-fuzz", b"other\r\neth0"]) | st.binary(max_size=20),
    max_size=3,
)


class Call(NamedTuple):
    """One whole call: `environ` are changes to a right environment, None removes."""

    verb: str
    environ: dict[str, str | None]
    stdin: bytes
    subnet_env: bytes | None
    state: bytes | None
    leases: dict[str, bytes]


_VALUES = {
    "CNI_COMMAND": st.sampled_from(["", "add", "UPDATE", "X" * 200]),
    "CNI_CONTAINERID": st.sampled_from(["", "..", "a/b", "ü", "x" * 201, "cid.other", "-x"]),
    "CNI_NETNS": st.sampled_from(["", "/run/none", "/run", "relative", "/proc/self/ns/net", "/run/netns/"]),
    "CNI_IFNAME": st.sampled_from(["", "..", "eth1", "x" * 16, "a b", "lo", "a/b", "%d"]),
    "CNI_ARGS": st.sampled_from(
        ["", ";", "=", "a", "IgnoreUnknown=1", "IP=10.244.1.9", "IP=x", "MAC=x", "K8S_POD_NAME=a;IgnoreUnknown=true"]
    ),
    "CNI_PATH": st.sampled_from(["", ":", "/none", "relative", "/run"]),
    "CNI_FLANNEL_DEBUG": st.just("1"),
    "CNI_NETNS_OVERRIDE": st.sampled_from(["", "0", "x"]),
}
environments = st.dictionaries(
    st.sampled_from(sorted(_VALUES)), st.none() | st.just("\0own"), max_size=2
).flatmap(
    lambda chosen: st.fixed_dictionaries({
        key: st.none() if value is None else _VALUES[key] for key, value in chosen.items()
    })
)
calls = st.builds(
    Call,
    verb=st.sampled_from(["ADD"] * 5 + list(VERBS)),
    environ=st.one_of(st.just({}), environments),
    stdin=_stdins(),
    subnet_env=st.none() | subnet_envs,
    state=states,
    leases=leases,
)
