"""What a running daemon tells the commands: one file beside ``subnet.env``.

It outlives the daemon, so that a node can be looked at, compared and cleaned up without it.
Leases are spelled as in a store (``subnet.keys``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from flanneld import config, document, files
from flanneld.backend.base import External, Identity
from flanneld.readiness import Cause
from flanneld.subnet import keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flanneld.lease import Lease
    from flanneld.options import Options


class StateError(Exception):
    """There is no state to be read; ``str`` says where it was looked for and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The flags that decide about rules and routes; ``store`` is where leases are, for people."""

    ip_masq: bool
    fully_random: bool
    forward_rules: bool
    blackhole_route: bool
    subnet_file: str
    store: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The daemon's decisions; ``written`` is the Unix time of their last change in seconds."""

    pid: int
    version: str
    written: float
    conf: config.NetConf
    settings: Settings
    external: External
    identity: Identity
    lease: Lease
    peers: tuple[Lease, ...]
    ready: bool
    causes: tuple[Cause, ...]


def path(subnet_file: str) -> str:
    """Where the state is: ``/run/flannel/subnet.state.json`` for ``/run/flannel/subnet.env``."""
    return f"{subnet_file.removesuffix('.env')}.state.json"


def lock_path(subnet_file: str) -> str:
    """Where the lock of the daemon is that writes this ``subnet.env``: ``.../subnet.lock``."""
    return f"{subnet_file.removesuffix('.env')}.lock"


def settings(options: Options) -> Settings:
    """Take the flags that the commands need."""
    return Settings(
        ip_masq=options.ip_masq,
        fully_random=not options.ip_masq_fully_random_disable,
        forward_rules=options.iptables_forward_rules,
        blackhole_route=options.ip_blackhole_route,
        subnet_file=options.subnet_file,
        store=_store(options),
    )


def _store(options: Options) -> str:
    if options.subnet_mgr == "local":
        return f"files in {options.data_dir}/local"
    if options.subnet_mgr == "etcd":
        return f"etcd at {', '.join(options.etcd_endpoints)}"
    way = options.kubeconfig_file or options.kube_api_url or "the account of its pod"
    return f"Kubernetes, by {way}"


def save(state: State) -> None:
    """Write the file.  OSError."""
    told = {
        "pid": state.pid,
        "version": state.version,
        "written": state.written,
        "ready": state.ready,
        "causes": [asdict(cause) for cause in state.causes],
        "conf": state.conf.text,
        "settings": asdict(state.settings),
        "external": _external_document(state.external),
        "identity": asdict(state.identity),
        "lease": state.lease.key,
        "expires": state.lease.expires,
        "leases": _leases_document((state.lease, *state.peers)),
        "since": [lease.since for lease in (state.lease, *state.peers)],
    }
    content = json.dumps(told, separators=(",", ":")).encode()
    files.write(path(state.settings.subnet_file), content, durable=False)


def load(subnet_file: str) -> State:
    """Read the file of the daemon that writes this ``subnet.env``; StateError."""
    place = path(subnet_file)
    try:
        content = files.read(place)
    except OSError as error:
        raise StateError(f"reading {place}: {error}") from None
    if content is None:
        raise StateError(
            f"{place} does not exist: flanneld has not run since this node booted, or writes"
            " elsewhere; name its --subnet-file"
        )
    try:
        return _state(document.parse(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StateError(
            f"{place} is not a state of this version: restart flanneld, which writes it"
        ) from None


def _state(told: dict[str, Any]) -> State:
    own = told["lease"]
    leases = {
        key: replace(
            keys.lease(key, value.encode(), told["expires"] if key == own else None), since=since
        )
        for (key, value), since in zip(told["leases"].items(), told["since"], strict=True)
    }
    return State(
        pid=told["pid"],
        version=told["version"],
        written=told["written"],
        ready=told["ready"],
        causes=causes(told["causes"]),
        conf=config.parse(told["conf"]),
        settings=Settings(**told["settings"]),
        external=_external(told["external"]),
        identity=Identity(**told["identity"]),
        lease=leases.pop(own),
        peers=tuple(leases.values()),
    )


def causes(documents: Iterable[Mapping[str, Any]]) -> tuple[Cause, ...]:
    """Read causes as they are in the state, and in what a daemon answers; KeyError, TypeError."""
    return tuple(Cause(**document) for document in documents)


def _leases_document(leases: Iterable[Lease]) -> dict[str, str]:
    return {lease.key: keys.value(lease.attributes).decode() for lease in leases}


def _external_document(external: External) -> dict[str, Any]:
    plain = (str, int, type(None))
    return {
        name: value if isinstance(value, plain) else _spelled(value)
        for name, value in asdict(external).items()
    }


def _spelled(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, tuple) else str(value)


def _external(told: dict[str, Any]) -> External:
    makers: dict[str, Any] = {
        "address": IPv4Address,
        "address6": IPv6Address,
        "public_ip": IPv4Address,
        "public_ip6": IPv6Address,
        "onlink": lambda prefixes: tuple(map(ip_network, prefixes)),
        "reserved": lambda prefixes: tuple(map(ip_network, prefixes)),
        "local": lambda addresses: tuple(map(ip_address, addresses)),
    }
    fields = {
        name: value if value is None or name not in makers else makers[name](value)
        for name, value in told.items()
    }
    return External(**fields)
