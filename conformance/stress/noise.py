"""Confs that are right, nearly right and wild: what `fuzz` sends to a plugin on stdin.

Strategies of hypothesis, so that a failure shrinks to the smallest conf that shows it. Paths stay
below /run and /var/lib, which are the world's own.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

_WORDS = [
    "",
    "a",
    "cbr0",
    "other",
    "0",
    "..",
    "/",
    "a/b",
    "ü",
    "\n",
    "x" * 300,
    "-",
    "eth0",
    "null",
]
_KEYS = """
cniVersion name type delegate ipam subnetFile dataDir runtimeConfig args dns prevResult
ipMasq mtu bridge isGateway isDefaultGateway forceAddress hairpinMode promiscMode vlan
vlanTrunk macspoofchk enabledad disableContainerInterface portIsolation ipMasqBackend
preserveDefaultVlan ranges routes subnet rangeStart rangeEnd gateway exclude ips ipRanges
mac resolvConf cni interfaces address interface dst gw sandbox version nameservers
capabilities subnetFileWait lockTimeout keepAcceptRA
""".split()  # noqa: SIM905 - one to read, not one a line
_ADDRESSES = [
    *("10.244.1.5/24", "10.244.1.0/24", "10.244.0.0/16", "10.244.1.1", "0.0.0.0/0", "::/0", "::1"),
    *(
        "fd00:f1:0:1::/64",
        "fd00:f1:0:1::9",
        "10.244.1.300/24",
        "10.244.1.0/33",
        "1.2.3",
        "::ffff:1.2.3.4",
    ),
    *(
        "10.0.0.0/31",
        "10.0.0.0/32",
        "255.255.255.255/0",
        "fe80::1%eth0",
        "01.2.3.4/8",
        "10.244.1.0/-1",
    ),
]
_PATHS = [
    "/run/x",
    "/run/flannel/subnet.env",
    "/var/lib/cni/x",
    "/run",
    "/run/none/none",
    "/run/x/../y",
]

words = st.one_of(st.sampled_from(_WORDS), st.text(max_size=8))
numbers = st.one_of(
    st.integers(-2, 3),
    st.sampled_from(
        [68, 1280, 1450, 4094, 4095, 65535, 65536, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
)
addresses = st.sampled_from(_ADDRESSES)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    words,
    addresses,
    st.sampled_from(_PATHS),
    st.sampled_from(VERSIONS),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(_KEYS), words), inner, max_size=4),
    ),
    max_leaves=8,
)


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is right, and one time in ten anything."""
    return st.integers(0, 9).flatmap(lambda kind: values if kind == 0 else right)


def _known(*keys: str, **own: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of the keys that it may have, mostly of the right kind."""
    rest = {key: values for key in keys if key not in own}
    return st.fixed_dictionaries({}, optional=rest | {k: mostly(v) for k, v in own.items()})


ranges = _known(subnet=addresses, rangeStart=addresses, rangeEnd=addresses, gateway=addresses)
routes = _known("scope", "table", dst=addresses, gw=addresses, mtu=numbers, priority=numbers)
_exclude = ["10.244.1.7", "10.244.1.64/26", "10.244.1.0/24", "fd00::/8"]
ipams = _known(
    exclude=st.lists(st.sampled_from(_exclude), max_size=2),
    type=st.sampled_from(["host-local"] * 9 + ["static", "nothing"]),
    ranges=st.lists(st.lists(ranges, max_size=2), max_size=2),
    routes=st.lists(routes, max_size=2),
    rangeStart=addresses,
    gateway=addresses,
    resolvConf=st.sampled_from(_PATHS),
)
_wild = _known(
    "ipam", "name", "vlanTrunk", "preserveDefaultVlan", vlan=numbers, macspoofchk=st.booleans()
)
_tame = _known(
    type=st.sampled_from(["bridge"] * 9 + ["nothing", "../x", "host-local"]),
    bridge=st.sampled_from(["cni0", "cni1", "cni2"] * 4 + ["phys0", "lo", "x" * 16, "a b", ""]),
    mtu=st.sampled_from([0, 1400, 1500]) | numbers,
    isDefaultGateway=st.booleans(),
    isGateway=st.booleans(),
    hairpinMode=st.booleans(),
    promiscMode=st.booleans(),
    forceAddress=st.booleans(),
    ipMasq=st.just(value=False),
    enabledad=st.booleans(),
    portIsolation=st.booleans(),
)
delegates = st.integers(0, 4).flatmap(
    lambda kind: _tame if kind else st.builds(lambda one, two: one | two, _tame, _wild)
)
runtime_configs = _known(
    "mac", ips=st.lists(addresses, max_size=2), ipRanges=st.lists(ranges, max_size=2)
)
results = _known(
    "dns",
    cniVersion=st.sampled_from(VERSIONS),
    interfaces=st.lists(_known(name=words, mac=words, sandbox=words, mtu=numbers), max_size=3),
    ips=st.lists(
        _known(address=addresses, gateway=addresses, interface=numbers, version=words), max_size=2
    ),
    routes=st.lists(routes, max_size=2),
)
NEIGHBOUR = {"containerID": "cid-neighbour", "ifname": "eth0"}
valid = st.lists(_known(containerID=words, ifname=words), max_size=2).map(
    lambda those: [*those, NEIGHBOUR]
)
confs = st.fixed_dictionaries(
    {
        "cniVersion": mostly(st.sampled_from(VERSIONS)),
        "name": st.sampled_from(["cbr0"] * 6 + ["other", "", "a/b"]),
        "type": st.just("flannel"),
    },
    optional={
        "delegate": mostly(delegates),
        "ipam": mostly(ipams),
        "subnetFile": st.sampled_from([_PATHS[1]] * 9 + _PATHS),
        "dataDir": st.sampled_from(["/var/lib/cni/x"] * 9 + _PATHS),
        "subnetFileWait": st.sampled_from([0, 0.1]),
        "runtimeConfig": mostly(runtime_configs),
        "args": mostly(_known(cni=_known(ips=st.lists(addresses, max_size=1)))),
        "dns": mostly(_known(nameservers=st.lists(words, max_size=2), domain=words)),
        "prevResult": mostly(results),
        "cni.dev/valid-attachments": mostly(valid),
    },
)


@st.composite
def _stdin(draw: st.DrawFn) -> bytes:
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


stdins = _stdin()
