"""The node's subnets: `/run/flannel/subnet.env`, which flanneld writes.

Lines `KEY=value` as the reference reader takes them: no quotes, no trimming, no `export`; CR LF
is fine, unknown keys, comments and blank lines are skipped, the last of two counts. Stricter than
it where a wrong value would only show later, as a pod without a network: each such line is an
error (code 7) with file, line and value. `parse` is pure; `load` reads and waits a little for a
file that flanneld has yet to write.
"""

from __future__ import annotations

import time

from cni import files
from cni.cidr import parse_prefix
from cni.errors import INVALID_NETWORK_CONFIG, IO_FAILURE, TRY_AGAIN_LATER, CNIError
from cni.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cni.cidr import Prefix
    from cni.types import Resident

DEFAULT_PATH = "/run/flannel/subnet.env"
_MAX_MTU = 65535
_STEP_S = 0.05
_FAILED = "failed to load flannel 'subnet.env' file"
_FAMILY = {
    "FLANNEL_NETWORK": 4,
    "FLANNEL_SUBNET": 4,
    "FLANNEL_IPV6_NETWORK": 6,
    "FLANNEL_IPV6_SUBNET": 6,
}
_REQUIRED = (  # one of each row
    ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"),
    ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"),
    ("FLANNEL_MTU",),
    ("FLANNEL_IPMASQ",),
)
_KEYS = (*_FAMILY, "FLANNEL_MTU", "FLANNEL_IPMASQ")


class SubnetEnv:
    """What flanneld says of this node. Networks and subnets are masked; a subnet may be None."""

    __slots__ = ("ip_masq", "ipv6_networks", "ipv6_subnet", "mtu", "networks", "path", "subnet")

    def __init__(  # noqa: PLR0917 - the file's fields
        self,
        path: str,
        networks: list[Prefix],
        subnet: Prefix | None,
        ipv6_networks: list[Prefix],
        ipv6_subnet: Prefix | None,
        mtu: int,
        ip_masq: bool,  # noqa: FBT001 - the file's own field
    ) -> None:
        self.path = path
        self.networks = networks
        self.subnet = subnet
        self.ipv6_networks = ipv6_networks
        self.ipv6_subnet = ipv6_subnet
        self.mtu = mtu
        self.ip_masq = ip_masq


class _Line:
    """One of the lines that count, with the place to name when it is wrong."""

    __slots__ = ("key", "number", "path", "value")

    def __init__(self, path: str, number: int, key: str, value: str) -> None:
        self.path = path
        self.number = number
        self.key = key
        self.value = value

    def refuse(self, why: str) -> NoReturn:
        """Raise the error of this line."""
        raise CNIError(
            INVALID_NETWORK_CONFIG,
            f"{_FAILED}: {self.path}:{self.number}: {self.key} {dumps(self.value)} {why}",
            "flanneld writes this file: correct its configuration, or the line itself",
        )


def parse(text: str, path: str) -> SubnetEnv:
    """Read the file's text; `path` is named in errors (code 7)."""
    lines = _lines(text, path)
    networks = _networks(lines.get("FLANNEL_NETWORK"))
    ipv6_networks = _networks(lines.get("FLANNEL_IPV6_NETWORK"))
    subnet = _subnet(lines.get("FLANNEL_SUBNET"), networks)
    ipv6_subnet = _subnet(lines.get("FLANNEL_IPV6_SUBNET"), ipv6_networks)
    _check_missing(lines, path)
    _check_pairs(lines)
    return SubnetEnv(
        path,
        networks,
        subnet,
        ipv6_networks,
        ipv6_subnet,
        _mtu(lines["FLANNEL_MTU"]),
        _flag(lines["FLANNEL_IPMASQ"]),
    )


def load(
    path: str = DEFAULT_PATH, wait_s: float = 2.0, resident: Resident | None = None
) -> SubnetEnv:
    """Read the file, waiting at most `wait_s` seconds for it to appear.

    CNIError 11 when it does not, 5 when it cannot be read, 7 when it is wrong. In a resident
    process it is also 11 when the caller does not wait any more.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return parse(files.read(path).decode("utf-8", "replace"), path)
        except (FileNotFoundError, NotADirectoryError):
            left = deadline - time.monotonic()
            if left <= 0:
                raise _missing(path) from None
            if resident is not None:
                resident.require_caller()
                resident.step_aside()
            time.sleep(min(_STEP_S, left))  # noqa: TID251 - inotify would need ctypes; rare
        except OSError as error:
            cause = str(error.strerror).lower()
            raise CNIError(
                IO_FAILURE,
                f"{_FAILED}: open {path}: {cause}",
                "it must be a plain file that root can read; flanneld writes it",
            ) from None


def _lines(text: str, path: str) -> dict[str, _Line]:
    lines: dict[str, _Line] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r")
        key, equals, value = line.partition("=")
        if key in _KEYS and equals:
            lines[key] = _Line(path, number, key, value)
        elif not equals and line.strip() and not line.lstrip().startswith("#"):
            _Line(path, number, "line", line).refuse("has no '='")
    return lines


def _networks(line: _Line | None) -> list[Prefix]:
    """Read the networks of a family, comma-separated, each once."""
    if line is None:
        return []
    return list(dict.fromkeys(_prefix(line, text).network for text in line.value.split(",")))


def _subnet(line: _Line | None, networks: list[Prefix]) -> Prefix | None:
    if line is None:
        return None
    subnet = _prefix(line, line.value).network
    if networks and not any(
        network.length <= subnet.length and network.contains(subnet.address) for network in networks
    ):
        inside = ",".join(str(network) for network in networks)
        line.refuse(f"lies outside the network {inside}")
    return subnet


def _prefix(line: _Line, text: str) -> Prefix:
    try:
        prefix = parse_prefix(text)
    except ValueError as error:
        line.refuse(f"is wrong: {error}")
    if prefix.family != _FAMILY[line.key]:
        line.refuse(f"holds {text}, which is not IPv{_FAMILY[line.key]}")
    return prefix


def _mtu(line: _Line) -> int:
    if not (line.value.isascii() and line.value.isdigit() and len(line.value) <= 10):
        line.refuse("is not a number")
    mtu = int(line.value)
    if not 0 < mtu <= _MAX_MTU:
        line.refuse(f"is not between 1 and {_MAX_MTU}")
    return mtu


def _flag(line: _Line) -> bool:
    if line.value not in ("true", "false"):
        line.refuse("is neither true nor false")
    return line.value == "true"


def _check_missing(lines: dict[str, _Line], path: str) -> None:
    missing: list[str] = []
    for either in _REQUIRED:
        if not any(key in lines for key in either):
            missing += either
    if missing:
        raise CNIError(
            INVALID_NETWORK_CONFIG,
            f"{_FAILED}: {path} is missing {', '.join(missing)}",
            "flanneld writes this file whole: is another program writing it?",
        )


def _check_pairs(lines: dict[str, _Line]) -> None:
    """Refuse a network without a subnet of its family, and the other way round."""
    for one, other in (
        ("FLANNEL_NETWORK", "FLANNEL_SUBNET"),
        ("FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"),
    ):
        for has, lacks in ((one, other), (other, one)):
            if has in lines and lacks not in lines:
                lines[has].refuse(f"has no {lacks} beside it: a pod would get no route")


def _missing(path: str) -> CNIError:
    from ipam.daemon import likely_reason  # this call has failed already

    return CNIError(
        TRY_AGAIN_LATER,
        f"{_FAILED}: open {path}: no such file or directory. "
        "Check the flannel pod log for this node.",
        likely_reason(path),
    )
