"""Whole calls for `fuzz`: a verb, the environment, stdin, and the files that a plugin reads.

The files are subnet.env, the attachment's state file and leases of its network. `datagrams` are for
readers of netlink messages. The confs are `noise`.
"""

from __future__ import annotations

import json
import struct
from typing import NamedTuple

from hypothesis import strategies as st

from conformance.stress.noise import NEIGHBOUR, delegates, stdins, words

VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
STATE = "/var/lib/cni/flannel/{}"
LEASE = "/var/lib/cni/networks/{}/{}"

_LINES = st.one_of(
    st.sampled_from(
        [
            *("FLANNEL_NETWORK=10.244.0.0/16", "FLANNEL_SUBNET=10.244.1.1/24", "FLANNEL_MTU=1450"),
            *(
                "FLANNEL_IPMASQ=true",
                "FLANNEL_IPV6_NETWORK=fd00:f1::/56",
                "FLANNEL_IPV6_SUBNET=fd00:f1:0:1::1/64",
            ),
            *(
                "FLANNEL_MTU=0",
                "FLANNEL_MTU=65536",
                "FLANNEL_SUBNET=10.9.9.1/24",
                "FLANNEL_NETWORK=",
                "# x",
                "=",
            ),
            *(
                "FLANNEL_SUBNET=10.244.1.1/32",
                "FLANNEL_NETWORK=10.0.0.0/8,10.244.0.0/16",
                "FLANNEL_IPMASQ=1",
            ),
        ]
    ),
    words,
)
_SUBNET_ENV = """\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


def subnet_env_of_a_node() -> str:
    """Return the file as the daemon writes it."""
    return _SUBNET_ENV


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
    st.sampled_from([b"", b"cid-fuzz\r\neth0", b"cid-fuzz", b"other\r\neth0"])
    | st.binary(max_size=20),
    max_size=3,
)


@st.composite
def _datagram(draw: st.DrawFn) -> bytes:
    """Netlink messages whose lengths are mostly right."""
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        body = draw(st.binary(max_size=24))
        for _ in range(draw(st.integers(0, 3))):
            value = draw(st.binary(max_size=12))
            length = 4 + len(value) + draw(st.sampled_from([0, 0, 0, -1, 1, 200]))
            kind = draw(st.integers(0, 64)) | draw(st.sampled_from([0, 0x8000]))
            body += struct.pack("=HH", max(0, length), kind) + value + b"\0" * (-len(value) % 4)
        kind = draw(st.sampled_from([2, 3, 16, 20, 24, 28, 88]))
        length = 16 + len(body) + draw(st.sampled_from([0, 0, 0, 0, -3, 5]))
        header = struct.pack("=IHHII", max(0, length), kind, draw(st.integers(0, 3)), 1, 0)
        parts.append(header + body + b"\0" * (-len(body) % 4))
    return b"".join(parts)


datagrams = st.binary(max_size=60) | _datagram()


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
    "CNI_NETNS": st.sampled_from(
        ["", "/run/none", "/run", "relative", "/proc/self/ns/net", "/run/netns/"]
    ),
    "CNI_IFNAME": st.sampled_from(["", "..", "eth1", "x" * 16, "a b", "lo", "a/b", "%d"]),
    "CNI_ARGS": st.sampled_from(
        [
            "",
            ";",
            "=",
            "a",
            "IgnoreUnknown=1",
            "IP=10.244.1.9",
            "IP=x",
            "MAC=x",
            "K8S_POD_NAME=a;IgnoreUnknown=true",
        ]
    ),
    "CNI_PATH": st.sampled_from(["", ":", "/none", "relative", "/run"]),
    "CNI_FLANNEL_DEBUG": st.just("1"),
    "CNI_NETNS_OVERRIDE": st.sampled_from(["", "0", "x"]),
}


def spares_neighbour(call: Call) -> bool:
    """Whether a call may leave the living attachment alone: GC ends what its list does not name."""
    try:
        conf = json.loads(call.stdin)
        named = conf.get("cni.dev/valid-attachments", [NEIGHBOUR])
    except (ValueError, AttributeError):
        return True
    return call.verb != "GC" or not isinstance(named, list) or NEIGHBOUR in named


environments = st.dictionaries(
    st.sampled_from(sorted(_VALUES)), st.none() | st.just("\0own"), max_size=2
).flatmap(
    lambda chosen: st.fixed_dictionaries(
        {key: st.none() if value is None else _VALUES[key] for key, value in chosen.items()}
    )
)
calls = st.builds(
    Call,
    verb=st.sampled_from(["ADD"] * 5 + list(VERBS)),
    environ=st.one_of(st.just({}), environments),
    stdin=stdins,
    subnet_env=st.none() | subnet_envs,
    state=states,
    leases=leases,
).filter(spares_neighbour)
