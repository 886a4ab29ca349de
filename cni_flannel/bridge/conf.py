"""The configuration of the ``bridge`` plugin: parsed, checked, defaulted.  Pure.

Every field of the Go plugin, with its default and its wording of errors, and ``keepAcceptRA``:
true leaves router advertisements on in a container that gets static IPv6 addresses.
Knows nothing of the kernel.  Keys match without regard to case, as in Go.
Imports: the protocol package, ``netconf``'s typed access.
"""

from __future__ import annotations

from cni import cniargs, version, wire
from cni.errors import CNIError
from cni.validate import not_a_new_link
from cni_flannel.netconf import MIN_MTU_IPV6, field, integer, invalid, is_sound, require_mtu, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.types import Args

BRIDGE = "cni0"
HOST_LOCAL = "host-local"  # the IPAM plugin of this pair
NO_IPAM = ("bridge", "flannel")  # these ask the IPAM plugin that the same conf names
IPTABLES, NFTABLES = "iptables", "nftables"
MAX_VLAN = 4094
KNOWN_CNI_ARGS = ("IP", "MAC", "GATEWAY")
_OFF = (None, False)

_KEYS = (
    "name",
    "cniVersion",
    "type",
    "bridge",
    "isGateway",
    "isDefaultGateway",
    "forceAddress",
    "ipMasq",
    "ipMasqBackend",
    "mtu",
    "hairpinMode",
    "promiscMode",
    "vlan",
    "vlanTrunk",
    "preserveDefaultVlan",
    "macspoofchk",
    "enabledad",
    "disableContainerInterface",
    "portIsolation",
    "keepAcceptRA",
    "ipam",
    "dns",
    "args",
    "runtimeConfig",
    "prevResult",
    "cni.dev/valid-attachments",
)


class BridgeConf:
    """One ``bridge`` configuration.

    ``mtu`` 0 is the kernel's default; ``vlan`` 0 is none; ``trunk`` is a list of (first, last)
    VLAN IDs; ``mac`` is the container end's address or ""; ``ipam_type`` "" means no layer 3.
    """

    __slots__ = (
        "bridge",
        "disable_container_interface",
        "dns",
        "enabledad",
        "force_address",
        "hairpin_mode",
        "ip_masq",
        "ip_masq_backend",
        "ipam_type",
        "is_default_gateway",
        "is_gateway",
        "keep_accept_ra",
        "mac",
        "macspoofchk",
        "mtu",
        "name",
        "port_isolation",
        "preserve_default_vlan",
        "promisc_mode",
        "raw",
        "trunk",
        "vlan",
    )

    def __init__(self, args: Args) -> None:
        conf = wire.canonical(args.conf, _KEYS)
        self.raw = conf
        self.name: str = field(conf, "name", str, "")
        self.bridge: str = field(conf, "bridge", str, "") or BRIDGE
        self.is_default_gateway: bool = field(conf, "isDefaultGateway", bool, False)
        self.is_gateway: bool = field(conf, "isGateway", bool, False) or self.is_default_gateway
        self.force_address: bool = field(conf, "forceAddress", bool, False)
        self.ip_masq: bool = field(conf, "ipMasq", bool, False)
        self.ip_masq_backend: str | None = field(conf, "ipMasqBackend", str, None)
        self.mtu = integer(conf, "mtu")
        self.hairpin_mode: bool = field(conf, "hairpinMode", bool, False)
        self.promisc_mode: bool = field(conf, "promiscMode", bool, False)
        self.vlan = integer(conf, "vlan")
        self.trunk = parse_trunk(field(conf, "vlanTrunk", list, []))
        self.preserve_default_vlan: bool = field(conf, "preserveDefaultVlan", bool, False)
        self.macspoofchk: bool = field(conf, "macspoofchk", bool, False)
        self.enabledad: bool = field(conf, "enabledad", bool, False)
        self.disable_container_interface: bool = field(
            conf, "disableContainerInterface", bool, False
        )
        self.port_isolation: bool = field(conf, "portIsolation", bool, False)
        self.keep_accept_ra: bool = field(conf, "keepAcceptRA", bool, False)
        self.dns = _dns(conf)
        ipam = wire.canonical(field(conf, "ipam", dict, {}), ("type",))
        self.ipam_type: str = field(ipam, "type", str, "")
        self.mac = requested_mac(args.cni_args, conf)
        _require_sense(self)

    @property
    def uses_vlans(self) -> bool:
        """Whether the bridge has to filter VLANs."""
        return self.vlan != 0 or bool(self.trunk)

    @property
    def is_small(self) -> bool:
        """Whether the MTU that is asked for is too small for IPv6."""
        return 0 < self.mtu < MIN_MTU_IPV6

    @property
    def gateway_holder(self) -> str:
        """The link that carries the gateway addresses: the bridge, or ``<bridge>.<vlan>``."""
        return f"{self.bridge}.{self.vlan}" if self.vlan else self.bridge


def parse(args: Args) -> BridgeConf:
    """Read the configuration in ``args``; CNIError 7 names the first value that is wrong."""
    conf = BridgeConf(args)
    if conf.ipam_type in NO_IPAM:
        raise invalid(
            f'"{conf.ipam_type}" is no IPAM plugin: it would call itself without end',
            "set 'type' of 'ipam' to host-local, static or dhcp, or leave it out",
        )
    return conf


class RemovalConf:
    """What DEL and GC need of a configuration, which ADD may refuse as well.

    Someone may have broken it after the ADD, or the ADD failed because of it: neither may keep a
    pod from going.  Where it says nothing of use, ``ipam_type`` is host-local, whose leases are
    found by their owner, and ``wants_rules`` (in the packet filter) is true.
    """

    __slots__ = ("bridge", "ipam_type", "name", "wants_rules")

    def __init__(self, raw: dict[str, Any]) -> None:
        conf = wire.canonical(raw, _KEYS)
        ipam = wire.canonical(conf["ipam"], ("type",)) if is_sound(conf, "ipam", dict) else {}
        self.name: str = conf["name"]
        self.bridge: str = (is_sound(conf, "bridge", str) and conf["bridge"]) or BRIDGE
        self.ipam_type: str = (is_sound(ipam, "type", str) and ipam["type"]) or HOST_LOCAL
        self.wants_rules = any(conf.get(key) not in _OFF for key in ("ipMasq", "macspoofchk"))


def _require_sense(conf: BridgeConf) -> None:
    for name in {conf.bridge, conf.gateway_holder if conf.is_gateway else conf.bridge}:
        if problem := not_a_new_link(name):
            raise invalid(f'could not add "{name}": {problem}', "choose another name for 'bridge'")
    has_ipv6 = conf.is_small and any(
        ":" in item.get("subnet", "") for item in ranges(conf.raw.get("ipam"))
    )
    require_mtu(conf.mtu, "'ipam' has a range of it" if has_ipv6 else "")
    if not 0 <= conf.vlan <= MAX_VLAN:
        raise invalid(f"invalid VLAN ID {conf.vlan} (must be between 0 and {MAX_VLAN})")
    if conf.hairpin_mode and conf.promisc_mode:
        raise invalid("cannot set hairpin mode and promiscuous mode at the same time")
    if conf.disable_container_interface and conf.ipam_type:
        raise invalid("cannot use IPAM when DisableContainerInterface flag is set")
    if conf.ip_masq_backend not in (None, "", IPTABLES, NFTABLES):
        raise invalid(
            f'unknown ipmasq backend "{conf.ip_masq_backend}"',
            f"set 'ipMasqBackend' to {IPTABLES} or {NFTABLES}, or leave it out",
        )


def _dns(conf: dict[str, Any]) -> dict[str, Any]:
    try:
        return version.dns(conf)
    except CNIError as error:
        raise invalid(f"parse configuration: {error.msg}") from None


def ranges(ipam: Any) -> list[dict[str, Any]]:
    """The ranges of an ``ipam`` section, in any of its forms, as far as they are objects.

    Each has ``subnet`` and ``gateway`` if they are texts; what is wrong of it host-local says.
    """
    if type(ipam) is not dict:
        return []
    keys = wire.canonical(ipam, ("ranges", "subnet", "gateway"))
    sets = keys.get("ranges")
    items = [keys, *(item for found in sets or () if type(found) is list for item in found)]
    found = [wire.canonical(item, ("subnet", "gateway")) for item in items if type(item) is dict]
    return [
        {key: item[key] for key in ("subnet", "gateway") if type(item.get(key)) is str}
        for item in found
    ]


def parse_trunk(entries: list[Any]) -> list[tuple[int, int]]:
    """``vlanTrunk`` as (first, last) VLAN IDs, each 1 to 4094, in the order given."""
    trunk: list[tuple[int, int]] = []
    for entry in entries:
        if type(entry) is not dict:
            raise invalid(f"'vlanTrunk' must hold objects, not {shown(entry)}")
        keys = wire.canonical(entry, ("minID", "maxID", "id"))
        trunk += _trunk_range(keys)
        if keys.get("id") is not None:
            trunk.append((_vlan_id(keys, "id"),) * 2)
    return trunk


def _trunk_range(keys: dict[str, Any]) -> list[tuple[int, int]]:
    has_min, has_max = keys.get("minID") is not None, keys.get("maxID") is not None
    if has_min != has_max:
        missing = "maxID" if has_min else "minID"
        raise invalid(f"minID and maxID should be configured simultaneously, {missing} is missing")
    if not has_min:
        return []
    first, last = _vlan_id(keys, "minID"), _vlan_id(keys, "maxID")
    if first > last:
        raise invalid(f"minID is greater than maxID in trunk parameter: {first} > {last}")
    return [(first, last)]


def _vlan_id(keys: dict[str, Any], key: str) -> int:
    value = keys[key]
    if type(value) is not int or not 1 <= value <= MAX_VLAN:
        raise invalid(
            f"incorrect trunk {key} parameter: {shown(value)} (must be between 1 and {MAX_VLAN})"
        )
    return value


def requested_mac(cni_args: str, conf: dict[str, Any]) -> str:
    """The container end's MAC address somebody asked for, "" if nobody did.

    ``runtimeConfig.mac`` before ``args.cni.mac`` before ``MAC=`` of CNI_ARGS.
    """
    runtime_config = wire.canonical(field(conf, "runtimeConfig", dict, {}), ("mac",))
    args = wire.canonical(field(conf, "args", dict, {}), ("cni",))
    args_cni = wire.canonical(field(args, "cni", dict, {}), ("mac",))
    text = (
        field(runtime_config, "mac", str, "")
        or field(args_cni, "mac", str, "")
        or cniargs.parse(cni_args, KNOWN_CNI_ARGS).get("MAC", "")
    )
    return normal_mac(text) if text else ""


def normal_mac(text: str) -> str:
    """A unicast Ethernet address as six lower-case octets with colons; CNIError 7 if it is not."""
    octets = text.replace("-", ":").split(":")
    digits = "0123456789abcdefABCDEF"
    if len(octets) != 6 or any(
        len(o) != 2 or o[0] not in digits or o[1] not in digits for o in octets
    ):
        raise invalid(
            f"invalid MAC address {shown(text)}", "give six octets such as 0a:58:0a:f4:01:02"
        )
    mac = ":".join(octets).lower()
    if int(octets[0], 16) & 1 or mac == "00:00:00:00:00:00":
        raise invalid(
            f"MAC address {mac} is not a unicast address", "give one whose first octet is even"
        )
    return mac
