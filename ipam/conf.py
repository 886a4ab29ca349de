"""What host-local is told by a conf, as far as every verb needs it.  Pure.

What only ADD and STATUS want, ranges and wishes, is in `request`. Keys of the plugin's own
objects match without regard to case, as in the reference plugin (containerd writes `Subnet`);
beyond it stand `subnetFile`, `subnetFileWait` and `lockTimeout`. Wrong conf is code 7 and names
key and value.
"""

from __future__ import annotations

from cni.errors import INVALID_NETWORK_CONFIG, CNIError
from cni.wire import canonical, dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DATA_DIR = "/var/lib/cni/networks"
LOCK_TIMEOUT_S = 10.0
SUBNET_FILE_WAIT_S = 2.0

_NET = ("name", "cniVersion", "ipam", "args", "runtimeConfig", "prevResult")
_IPAM = (
    "type",
    "dataDir",
    "resolvConf",
    "routes",
    "ranges",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "subnetFile",
    "subnetFileWait",
    "exclude",
    "lockTimeout",
)


class Conf:
    """The parts that every verb needs; DEL and GC must do without valid ranges.

    `ipam` is the conf's ipam object with canonical keys, `net` the conf around it.
    """

    __slots__ = ("data_dir", "ipam", "lock_timeout_s", "name", "net", "subnet_file", "wait_s")

    def __init__(self, conf: dict[str, Any]) -> None:
        self.net = canonical(conf, _NET)
        self.ipam = canonical(object_at(self.net, "ipam"), _IPAM)
        self.name = string_at(self.net, "name")
        if not self.name or self.name[0] == "." or "/" in self.name:
            raise wrong("invalid characters found in network name", self.name)
        self.data_dir = string_at(self.ipam, "dataDir", "ipam.dataDir") or DATA_DIR
        self.subnet_file = string_at(self.ipam, "subnetFile", "ipam.subnetFile")
        self.lock_timeout_s = _seconds(self.ipam, "lockTimeout", LOCK_TIMEOUT_S)
        self.wait_s = _seconds(self.ipam, "subnetFileWait", SUBNET_FILE_WAIT_S)


def for_removal(conf: dict[str, Any]) -> Conf:
    """Read what DEL and GC need: where the leases are.  What is of no use counts as absent.

    ADD may refuse the same conf: someone may have broken it meanwhile.
    """
    net = canonical(conf, _NET)
    ipam = canonical(net["ipam"], _IPAM) if isinstance(net.get("ipam"), dict) else {}
    for keys in (("dataDir", "lockTimeout"), ("dataDir",)):
        try:
            kept = {key: ipam.get(key) for key in keys}
            return Conf({"name": net.get("name"), "ipam": kept})
        except CNIError:
            continue
    return Conf({"name": net.get("name")})


def object_at(holder: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at a key, {} if absent; CNIError 7 if it is none."""
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(f"{key} {dumps(value)} is not an object")
    return value


def string_at(holder: dict[str, Any], key: str, where: str = "") -> str:
    """The text at a key, "" if absent; CNIError 7, naming `where`, if it is none."""
    value = holder.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong(f"{where or key} {dumps(value)} is not a string")
    if "\0" in value:
        raise wrong(f"{where or key} {dumps(value)} has a NUL character")
    return value


def _seconds(holder: dict[str, Any], key: str, default: float) -> float:
    value = holder.get(key)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 600:
        raise wrong(f"ipam.{key} {dumps(value)} is not a number of seconds from 0 to 600")
    return float(value)


def wrong(msg: str, details: str = "") -> CNIError:
    """An error of code 7 with the usual remedy."""
    remedy = "correct the network configuration (usually a file in /etc/cni/net.d)"
    return CNIError(INVALID_NETWORK_CONFIG, msg, details or remedy)
