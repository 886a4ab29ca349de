"""The daemon's flags, with the names, defaults and ``FLANNELD_*`` variables of the Go daemon.

Those that the Go daemon does not have stand at the end of the table.  Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from flanneld.flags import Flag, UsageError, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KLOG = "only -v is"

FLAGS = (
    Flag(
        "etcd-endpoints",
        "http://127.0.0.1:4001,http://127.0.0.1:2379",
        "a comma-delimited list of etcd endpoints",
    ),
    Flag("etcd-prefix", "/coreos.com/network", "etcd prefix"),
    Flag("etcd-keyfile", "", "SSL key file used to secure etcd communication"),
    Flag("etcd-certfile", "", "SSL certification file used to secure etcd communication"),
    Flag("etcd-cafile", "", "SSL Certificate Authority file used to secure etcd communication"),
    Flag("etcd-username", "", "username for etcd's own authentication"),
    Flag("etcd-password", "", "password for etcd's own authentication"),
    Flag("iface", (), "interface to use (IP or name) for inter-host communication; repeatable"),
    Flag(
        "iface-regex",
        (),
        "regular expression for the first interface to use, by IP or name; after --iface;"
        " repeatable",
    ),
    Flag("iface-can-reach", "", "use the interface that the route to this IP takes"),
    Flag("subnet-file", "/run/flannel/subnet.env", "where to write the node's subnet and MTU"),
    Flag("public-ip", "", "IP accessible by other nodes for inter-host communication"),
    Flag("public-ipv6", "", "IPv6 accessible by other nodes for inter-host communication"),
    Flag(
        "subnet-lease-renew-margin",
        60,
        "minutes before its end at which a lease is renewed, 1-1439",
    ),
    Flag("ip-masq", False, "masquerade traffic destined outside of the network"),
    Flag("ip-masq-fully-random-disable", False, "masquerade without --random-fully"),
    Flag("kube-subnet-mgr", False, "the node's subnet is its podCIDR, by the Kubernetes API"),
    Flag("kube-api-url", "", "URL of the Kubernetes API server; before the kubeconfig's"),
    Flag("kubeconfig-file", "", "kubeconfig file; without it and a URL: as a pod of the cluster"),
    Flag(
        "kube-annotation-prefix",
        "flannel.alpha.coreos.com",
        "what the names of the Node's annotations begin with",
    ),
    Flag(
        "set-node-network-unavailable",
        True,
        "set the Node's condition NetworkUnavailable to False when pods are reached",
    ),
    Flag(
        "net-config-path",
        "/etc/kube-flannel/net-conf.json",
        "the network's configuration, for Kubernetes, and for --subnet-mgr local without --network",
    ),
    Flag("healthz-ip", "0.0.0.0", "address on which /healthz, /readyz and /metrics are served"),  # noqa: S104 - Go's default; off unless a port is given
    Flag("healthz-port", 0, "port on which /healthz, /readyz and /metrics are served (0: none)"),
    Flag("iptables-resync", 5, "seconds between two checks of the rules"),
    Flag("iptables-forward-rules", True, "accept forwarded traffic of the network"),
    Flag("ip-blackhole-route", False, "add a blackhole route for the node's subnet"),
    Flag("version", False, "print the version and exit"),
    Flag("v", 0, "level of detail of the log: 0, or 1 for debugging"),
    Flag("vmodule", "", "levels of detail by module", _KLOG),
    Flag("log_backtrace_at", ":0", "a line of the source at which to log the stack", _KLOG),
    # Not of the Go daemon:
    Flag("subnet-mgr", "etcd", "where leases are kept: etcd, kube, or local (on this machine)"),
    Flag("network", "", "the network for --subnet-mgr local: one CIDR, or one of each family"),
    Flag("subnet", "", "this node's subnet, for --subnet-mgr local: one CIDR, or one a family"),
    Flag("backend", "vxlan", "the backend type that goes with --network"),
    Flag("peers", "", "JSON file with the leases of other nodes, for --subnet-mgr local; watched"),
    Flag("data-dir", "/var/lib/flannel", "what must outlive a reboot: MACs, local leases"),
    Flag("cni-conflist", "", "where the runtime reads its plugins' list; written when ready"),
    Flag("cni-conflist-from", "/etc/kube-flannel/cni-conf.json", "what is written there"),
    Flag("cni-conflist-link", True, "as a link into the folder of subnet.env, gone after a boot"),
    Flag("cleanup", False, "remove every trace from this node and exit"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """The values of all flags; addresses and lists are parsed, "" is None."""

    etcd_endpoints: tuple[str, ...]
    etcd_prefix: str
    etcd_keyfile: str
    etcd_certfile: str
    etcd_cafile: str
    etcd_username: str
    etcd_password: str
    iface: tuple[str, ...]
    iface_regex: tuple[str, ...]
    iface_can_reach: IPv4Address | IPv6Address | None
    subnet_file: str
    public_ip: IPv4Address | None
    public_ipv6: IPv6Address | None
    subnet_lease_renew_margin: int
    ip_masq: bool
    ip_masq_fully_random_disable: bool
    kube_api_url: str
    kubeconfig_file: str
    kube_annotation_prefix: str
    set_node_network_unavailable: bool
    net_config_path: str
    healthz_ip: IPv4Address | IPv6Address
    healthz_port: int
    iptables_resync: int
    iptables_forward_rules: bool
    ip_blackhole_route: bool
    v: int
    subnet_mgr: str
    network: str
    subnet: str
    backend: str
    peers: str
    data_dir: str
    cni_conflist: str
    cni_conflist_from: str
    cni_conflist_link: bool
    cleanup: bool


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read the command line and the environment; UsageError if anything in them is wrong."""
    found, rest = parse(FLAGS, argv, environ)
    if rest:
        raise UsageError(
            f'unexpected argument "{rest[0]}": a flag behind it would be ignored;'
            " a boolean is written --flag=false"
        )
    values: dict[str, Any] = dict(found)
    fields = {name.replace("-", "_"): value for name, value in values.items()}
    fields["etcd_endpoints"] = _list(values["etcd-endpoints"])
    fields["public_ip"] = _address(values, "public-ip", IPv4Address)
    fields["public_ipv6"] = _address(values, "public-ipv6", IPv6Address)
    fields["iface_can_reach"] = _address(values, "iface-can-reach", ip_address)
    if values["kube-subnet-mgr"]:
        if values["subnet-mgr"] == "local":
            raise UsageError("-kube-subnet-mgr and -subnet-mgr local: give one of the two")
        fields["subnet_mgr"] = "kube"
    fields["healthz_ip"] = _address(values, "healthz-ip", ip_address) or IPv4Address(0)
    options = Options(**{name: fields[name] for name in Options.__dataclass_fields__})
    _check(options)
    return options


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _address(values: Mapping[str, Any], name: str, make: Any) -> Any:
    if not values[name]:
        return None
    try:
        return make(values[name])
    except ValueError:
        raise UsageError(
            f'invalid value "{values[name]}" for flag -{name}: it is not an IP of its family'
        ) from None


def _check(options: Options) -> None:
    margin = options.subnet_lease_renew_margin
    if not 1 <= margin <= 1439:
        raise UsageError(
            "Invalid subnet-lease-renew-margin option, out of acceptable range: it is"
            f" {margin}, and must lie between 1 and 1439 minutes"
        )
    _check_range("healthz-port", options.healthz_port, 0, 65535)
    _check_range("iptables-resync", options.iptables_resync, 1, 86400)
    for pattern in options.iface_regex:
        _check_pattern(pattern)
    if options.subnet_mgr not in ("etcd", "kube", "local"):
        raise UsageError(
            f'invalid value "{options.subnet_mgr}" for flag -subnet-mgr: etcd, kube or local'
        )
    if bool(options.etcd_keyfile) != bool(options.etcd_certfile):
        raise UsageError("-etcd-keyfile and -etcd-certfile belong together: give both or neither")
    if bool(options.etcd_username) != bool(options.etcd_password):
        raise UsageError("-etcd-username and -etcd-password belong together: give both or neither")
    if options.subnet_mgr == "etcd" and not options.etcd_endpoints:
        raise UsageError("-etcd-endpoints is empty: name at least one, as http://127.0.0.1:2379")
    if options.subnet_mgr != "local":
        _check_shared(options)


def _check_shared(options: Options) -> None:
    for name, value in (
        ("network", options.network),
        ("subnet", options.subnet),
        ("peers", options.peers),
    ):
        if value:
            raise UsageError(f"-{name} {value} is for --subnet-mgr local only")


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(
            f"invalid value {value} for flag -{name}: it must lie between {least} and {most}"
        )


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f'invalid value "{pattern}" for flag -iface-regex: not a regular expression: {error}'
        ) from None
