"""The network configuration of the ``flannel`` plugin: parsed, typed, defaulted.  Pure.

Knows the keys a user may write beside the spec's own and what each must be.  Knows nothing of
``subnet.env`` or of the delegate's configuration: ``delegate`` and ``ipam`` stay raw maps, whose
unknown keys belong to the plugins they are for.

Keys of the plugin's own object match without regard to case, as in Go.
Imports: the protocol package only.
"""

from __future__ import annotations

from cni import errors, wire
from cni.errors import CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SUBNET_FILE = "/run/flannel/subnet.env"
DATA_DIR = "/var/lib/cni/flannel"
SUBNET_FILE_WAIT_S = 2.0
MAX_SUBNET_FILE_WAIT_S = 60.0
MIN_MTU, MAX_MTU = 68, 65535
MIN_MTU_IPV6 = 1280  # RFC 8200, section 5; below, the kernel takes IPv6 from the link
_MTU = "correct 'mtu' of the configuration, or FLANNEL_MTU in subnet.env, which the daemon writes"
VALID_ATTACHMENTS = "cni.dev/valid-attachments"

_TYPES: dict[str, type] = {
    "name": str,
    "cniVersion": str,
    "subnetFile": str,
    "dataDir": str,
    "delegate": dict,
    "ipam": dict,
    "runtimeConfig": dict,
    "args": dict,
    "dns": dict,
    "prevResult": dict,
}
_KEYS = (*_TYPES, "type", "subnetFileWait", VALID_ATTACHMENTS)
_KINDS = {str: "a string", dict: "an object", list: "a list", bool: "true or false"}


class NetConf:
    """One network configuration of type ``flannel``.

    ``subnet_file_wait`` is in seconds; ``delegate``, ``ipam``, ``runtime_config``, ``args``,
    ``dns`` and ``prev_result`` are JSON objects as the user wrote them, ``None`` when absent.
    """

    __slots__ = (
        "args",
        "cni_version",
        "data_dir",
        "delegate",
        "dns",
        "ipam",
        "name",
        "prev_result",
        "raw",
        "runtime_config",
        "subnet_file",
        "subnet_file_wait",
    )

    def __init__(self, raw: dict[str, Any]) -> None:
        conf = wire.canonical(raw, _KEYS)
        self.raw = conf
        self.name: str = field(conf, "name", str, "")
        self.cni_version: str = field(conf, "cniVersion", str, "")
        self.subnet_file: str = field(conf, "subnetFile", str, "") or SUBNET_FILE
        self.subnet_file_wait = _seconds(conf, "subnetFileWait", SUBNET_FILE_WAIT_S)
        self.data_dir: str = field(conf, "dataDir", str, "") or DATA_DIR
        self.delegate: dict[str, Any] = field(conf, "delegate", dict, {})
        self.ipam: dict[str, Any] = field(conf, "ipam", dict, {})
        self.runtime_config: dict[str, Any] | None = field(conf, "runtimeConfig", dict, None)
        self.args: dict[str, Any] | None = field(conf, "args", dict, None)
        self.dns: dict[str, Any] | None = field(conf, "dns", dict, None)
        self.prev_result: dict[str, Any] | None = field(conf, "prevResult", dict, None)


def parse(raw: dict[str, Any]) -> NetConf:
    """Read a ``flannel`` configuration; CNIError 7 names the first key that is wrong."""
    return NetConf(raw)


def parse_for_removal(raw: dict[str, Any]) -> NetConf:
    """Read what DEL and GC need of a configuration that ADD would refuse as well.

    Someone may have broken it after the ADD, or the ADD failed because of it: neither may keep a
    pod from going.  What is of the wrong type counts as absent.
    """
    conf = wire.canonical(raw, _KEYS)
    kept = {key: conf[key] for key in _TYPES if is_sound(conf, key, _TYPES[key])}
    return NetConf({**kept, VALID_ATTACHMENTS: conf.get(VALID_ATTACHMENTS)})


def is_sound(conf: dict[str, Any], key: str, kind: type) -> bool:
    """Whether something of that kind is at ``key``, which the kernel would take if it is a path."""
    value = conf.get(key)
    return type(value) is kind and not (type(value) is str and "\0" in value)


def field(conf: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    """The value of ``key`` if it is of ``kind``, ``default`` if absent or null; CNIError 7 else."""
    value = conf.get(key)
    if value is None:
        return default
    if not is_sound(conf, key, kind):
        kinds = _KINDS[kind] if type(value) is not kind else "without a NUL character"
        raise invalid(f"parse configuration: {wire.dumps(key)} must be {kinds}, not {shown(value)}")
    return value


def integer(conf: dict[str, Any], key: str) -> int:
    """The whole number at ``key``, 0 if absent; CNIError 7 if it is anything else."""
    value = conf.get(key)
    if value is None:
        return 0
    if type(value) is not int:
        raise invalid(
            f"parse configuration: {wire.dumps(key)} must be a whole number, not {shown(value)}"
        )
    return value


def shown(value: object) -> str:
    """A value as JSON, shortened so that an error stays readable."""
    try:
        text = wire.dumps(value)
    except ValueError as error:
        return str(error)
    return text if len(text) <= 80 else text[:77] + "..."


def invalid(msg: str, details: str = "") -> CNIError:
    """An error of code 7 with the usual remedy."""
    remedy = "correct the network configuration (usually a file in /etc/cni/net.d)"
    return CNIError(errors.INVALID_NETWORK_CONFIG, msg, details or remedy)


def require_mtu(mtu: int, ipv6: str = "") -> None:
    """CNIError 7 unless a link may have that MTU, 0 being the kernel's choice.

    ``ipv6`` says why it needs IPv6, or is empty.
    """
    if mtu and not MIN_MTU <= mtu <= MAX_MTU:
        raise invalid(f"invalid MTU {mtu} (must be 0 or between {MIN_MTU} and {MAX_MTU})", _MTU)
    if ipv6 and 0 < mtu < MIN_MTU_IPV6:
        raise invalid(
            f"invalid MTU {mtu}: IPv6 needs at least {MIN_MTU_IPV6} (RFC 8200), and {ipv6}", _MTU
        )


def _seconds(conf: dict[str, Any], key: str, default: float) -> float:
    value = conf.get(key)
    if value is None:
        return default
    if type(value) not in (int, float) or not 0 <= value <= MAX_SUBNET_FILE_WAIT_S:
        raise invalid(
            f"parse configuration: {wire.dumps(key)} must be seconds from 0 to "
            f"{MAX_SUBNET_FILE_WAIT_S:.0f}, not {shown(value)}"
        )
    return float(value)
