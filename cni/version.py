"""CNI versions: which verb is allowed from which version, and results between versions.

Inside the project a result has the shape of 1.1.0; `convert` writes the shape of any version
for the runtime and `decode` reads one from a delegate or from `prevResult`. Shapes and key
order are those of the reference library (SPEC "ADD Success" of each version, pkg/types there).
Pure: values in, values out. Import contract: cni.errors; cni.cidr only when a foreign result is
read.
"""

from __future__ import annotations

from cni.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, CNIError
from cni.wire import canonical, dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
DEFAULT = "0.1.0"  # of a conf that names none
FIRST_WITH = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}

# The versions whose results have one shape, as the reference library groups them.
_SHAPES = (("0.1.0", "0.2.0"), ("0.3.0", "0.3.1", "0.4.0"), ("1.0.0", "1.1.0"))
_OLDEST, _MIDDLE, _NEWEST = range(3)
_SHAPE_OF = {version: number for number, shape in enumerate(_SHAPES) for version in shape}

_OLD_INTERFACE = ("name", "mac", "sandbox")
_INTERFACE_KEYS = ("name", "mac", "mtu", "sandbox", "socketPath", "pciID")
_IP_KEYS = ("address", "gateway", "interface")
_ROUTE_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
_DNS_KEYS = ("nameservers", "domain", "search", "options")
_ALPHABETIC_ROUTE = tuple(sorted(("dst", "gw", *_ROUTE_NUMBERS)))
_ALPHABETIC_DNS = tuple(sorted(_DNS_KEYS))
_ALPHABETIC_INTERFACE = tuple(sorted(_INTERFACE_KEYS))


def of_conf(conf: Mapping[str, Any]) -> str:
    """Return the conf's version; absent and empty mean 0.1.0."""
    version = conf.get("cniVersion")
    if version is None or version == "":
        return DEFAULT
    if not isinstance(version, str):
        raise CNIError(
            DECODING_FAILURE,
            "decoding version from network config: cniVersion must be a string, "
            f"not {dumps(version)}",
            'write the version in quotes, for example "cniVersion": "1.1.0"',
        )
    return version


def check(command: str, conf_version: str) -> None:
    """Refuse a verb that the conf's version does not have, and a version that we do not have."""
    first = FIRST_WITH.get(command)
    if first is not None:
        wanted = _parts(conf_version)
        if wanted < _parts(first):
            raise CNIError(
                INCOMPATIBLE_VERSION,
                f"config version does not allow {command}",
                f"config is {dumps(conf_version)}, {command} exists from {first} on",
            )
        if wanted > _parts(SUPPORTED[-1]):
            raise CNIError(
                INCOMPATIBLE_VERSION,
                f"plugin version does not allow {command}",
                f"config is {dumps(conf_version)}, plugin supports up to {SUPPORTED[-1]}",
            )
    if conf_version not in SUPPORTED:
        supported = " ".join(f'"{version}"' for version in SUPPORTED)
        raise CNIError(
            INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f"config is {dumps(conf_version)}, plugin supports [{supported}]",
        )


def _parts(version: str) -> tuple[int, int, int]:
    """Split a version into numbers; missing ones are 0."""
    words = version.split(".")
    if len(words) > 3:
        raise CNIError(DECODING_FAILURE, f"invalid version {dumps(version)}: too many parts")
    numbers = [0, 0, 0]
    for place, (name, word) in enumerate(zip(("major", "minor", "micro"), words, strict=False)):
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            raise CNIError(
                DECODING_FAILURE,
                f"failed to convert {name} version part {dumps(word)}: "
                f"strconv.Atoi: parsing {dumps(word)}: invalid syntax",
                f"cniVersion is {dumps(version)}",
            )
        numbers[place] = int(word)
    return numbers[0], numbers[1], numbers[2]


def convert(result: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Write an internal result in the shape and key order of `version`."""
    shape = _SHAPE_OF.get(version)
    if shape is None:
        raise CNIError(
            INCOMPATIBLE_VERSION,
            f"no converter for CNI result version {SUPPORTED[-1]} to {version}",
        )
    if shape == _NEWEST:
        return _to_newest(result, version)
    if shape == _MIDDLE:
        return _to_middle(result, version)
    return _to_oldest(result, version)


def _picked(source: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Copy the keys that hold something, in the given order. 0 is something, "" is not."""
    found = ((key, source.get(key)) for key in keys)
    return {key: value for key, value in found if value or value == 0}


def _records(result: Mapping[str, Any], part: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    return [_picked(item, keys) for item in result.get(part) or ()]


def _to_newest(result: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Shape of 1.x: keys in alphabetic order at every level, empty parts left out."""
    out: dict[str, Any] = {"cniVersion": version}
    _put(out, "dns", _picked(result.get("dns") or {}, _ALPHABETIC_DNS))
    _put(out, "interfaces", _records(result, "interfaces", _ALPHABETIC_INTERFACE))
    _put(out, "ips", _records(result, "ips", _IP_KEYS))
    _put(out, "routes", _records(result, "routes", _ALPHABETIC_ROUTE))
    return out


def _to_middle(result: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Shape of 0.3.0 to 0.4.0: a version beside each address, `dns` always there."""
    out: dict[str, Any] = {"cniVersion": version}
    ips = _records(result, "ips", ("interface", "address", "gateway"))
    _put(out, "interfaces", _records(result, "interfaces", _OLD_INTERFACE))
    _put(out, "ips", [{"version": _family(ip["address"]), **ip} for ip in ips])
    _put(out, "routes", _records(result, "routes", ("dst", "gw", *_ROUTE_NUMBERS)))
    out["dns"] = _picked(result.get("dns") or {}, _DNS_KEYS)
    return out


def _to_oldest(result: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Shape of 0.1.0 and 0.2.0: the first address of each family, its routes under it."""
    families: dict[str, dict[str, Any]] = {}
    for ip in result.get("ips") or ():
        config = {"ip": ip["address"], **_picked(ip, ("gateway",))}
        families.setdefault(_family(ip["address"]), config)
    for route in result.get("routes") or ():
        config = families.get(_family(route["dst"]), {})
        config.setdefault("routes", []).append(_picked(route, ("dst", "gw")))
    if not families:
        raise CNIError(
            INCOMPATIBLE_VERSION,
            "cannot convert: no valid IP addresses",
            f"results of version {version} cannot describe an interface without an address; "
            "use cniVersion 0.3.0 or later",
        )
    out: dict[str, Any] = {"cniVersion": version}
    out.update((f"ip{family}", families[family]) for family in sorted(families))
    out["dns"] = _picked(result.get("dns") or {}, _DNS_KEYS)
    return out


def _family(address: str) -> str:
    return "6" if ":" in address else "4"


def _put(out: dict[str, Any], key: str, value: Any) -> None:
    """Set a key unless its value is empty."""
    if value:
        out[key] = value


# ----------------------------------------------------------------------------------- from a version


def prev_result(conf: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the conf's `prevResult` in the internal shape, or None when there is none."""
    raw = conf.get("prevResult")
    if raw is None:
        return None
    try:
        return decode(raw, of_conf(conf))
    except CNIError as error:
        raise CNIError(
            error.code,
            f"could not parse prevResult: {error.msg}",
            error.details or "the runtime has to pass the result of the ADD as it was printed",
        ) from None


def decode(result: Any, version: str) -> dict[str, Any]:
    """Read a result written in the shape of `version` into the internal shape.

    Addresses come out in canonical form. CNIError 6 on a part of the wrong type, on text that
    is no address, and on a result that names a version of another shape.
    """
    shape = _SHAPE_OF.get(version)
    if shape is None:
        raise CNIError(INCOMPATIBLE_VERSION, f"unsupported CNI result version {dumps(version)}")
    keys = ("cniVersion", "interfaces", "ips", "routes", "dns", "ip4", "ip6")
    source = canonical(_expect(result, dict, "result"), keys)
    if (named := source.get("cniVersion") or version) not in _SHAPES[shape]:
        raise CNIError(
            DECODING_FAILURE,
            f"result type supports [{' '.join(_SHAPES[shape])}] "
            f"but unmarshalled CNIVersion is {dumps(named)}",
        )
    if shape == _OLDEST:
        return _from_oldest(source)
    out: dict[str, Any] = {}
    _put(out, "interfaces", [_interface(item, shape) for item in _list(source, "interfaces")])
    _put(out, "ips", [_ip(item) for item in _list(source, "ips")])
    _put(out, "routes", [_route(item) for item in _list(source, "routes")])
    _put(out, "dns", dns(source))
    return out


def _from_oldest(source: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    ips: list[dict[str, Any]] = []
    routes: list[dict[str, Any]] = []
    for key in ("ip4", "ip6"):
        if key not in source:
            continue
        config = canonical(_expect(source[key], dict, key), ("ip", "gateway", "routes"))
        ips.append(_ip({"address": config.get("ip", ""), "gateway": config.get("gateway")}))
        routes.extend(_route(item) for item in _list(config, "routes"))
    _put(out, "ips", ips)
    _put(out, "routes", routes)
    _put(out, "dns", dns(source))
    return out


def _expect(value: Any, kind: type, what: str) -> Any:
    """Return `value` if it has the type that the key must have."""
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    wanted = {dict: "an object", list: "a list", str: "a string", int: "an integer"}[kind]
    raise CNIError(DECODING_FAILURE, f"{what} must be {wanted}, not {dumps(value)[:60]}")


def _list(source: Mapping[str, Any], key: str, what: str = "") -> list[Any]:
    return list(_expect(source.get(key, []), list, what or key))


def _interface(item: Any, shape: int) -> dict[str, Any]:
    source = canonical(_expect(item, dict, "interfaces"), _INTERFACE_KEYS)
    keys = _INTERFACE_KEYS if shape == _NEWEST else _OLD_INTERFACE
    for key in keys:
        if key in source:
            _expect(source[key], int if key == "mtu" else str, f"interfaces.{key}")
    return _picked(source, keys)


def _ip(item: Any) -> dict[str, Any]:
    source = canonical(_expect(item, dict, "ips"), _IP_KEYS)
    out = {"address": _cidr(source.get("address", ""), "ips.address")}
    _put(out, "gateway", _address(source.get("gateway"), "ips.gateway"))
    if "interface" in source:
        out["interface"] = _expect(source["interface"], int, "ips.interface")
    return out


def _route(item: Any) -> dict[str, Any]:
    source = canonical(_expect(item, dict, "routes"), _ALPHABETIC_ROUTE)
    out: dict[str, Any] = {"dst": _cidr(source.get("dst", ""), "routes.dst")}
    _put(out, "gw", _address(source.get("gw"), "routes.gw"))
    for key in _ROUTE_NUMBERS:
        if key in source:
            out[key] = _expect(source[key], int, f"routes.{key}")
    return out


def dns(source: Mapping[str, Any]) -> dict[str, Any]:
    """Read the `dns` of a conf or a result, {} if there is none; CNIError 6 on a wrong type."""
    found = canonical(_expect(source.get("dns", {}), dict, "dns"), _DNS_KEYS)
    for key in _DNS_KEYS:
        for text in [found.get(key, "")] if key == "domain" else _list(found, key, f"dns.{key}"):
            _expect(text, str, f"dns.{key}")
    return _picked(found, _DNS_KEYS)


def _cidr(text: Any, what: str) -> str:
    return _canonical_text(text, what, is_prefix=True)


def _address(text: Any, what: str) -> str:
    return "" if text in (None, "") else _canonical_text(text, what, is_prefix=False)


def _canonical_text(text: Any, what: str, *, is_prefix: bool) -> str:
    from cni.cidr import parse_address, parse_prefix  # only foreign results are parsed

    try:
        return str((parse_prefix if is_prefix else parse_address)(_expect(text, str, what)))
    except ValueError as error:
        raise CNIError(DECODING_FAILURE, f"{what}: {error}") from None
