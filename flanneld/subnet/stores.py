"""Which store the flags name; each is imported only if it is used."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Network, IPv6Network, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flanneld import config, files
from flanneld.flags import UsageError
from flanneld.lease import Lease
from flanneld.subnet import choice

if TYPE_CHECKING:
    from flanneld.config import NetConf
    from flanneld.options import Options
    from flanneld.subnet.manager import Manager


def store(options: Options) -> Manager:
    """Make the store of leases; nothing is asked of it yet.  UsageError, ConfigError."""
    if options.subnet_mgr == "local":
        from flanneld.subnet.local import Local

        folder = str(Path(options.data_dir, "local"))
        source = "--network" if options.network else options.net_config_path

        def read() -> NetConf:
            with config.blamed(source):
                return config.parse(local_conf(options))

        conf = read()
        wanted = _wanted(options.subnet, conf)
        return Local(conf, folder, options.peers, wanted, source=source, again=read)
    if options.subnet_mgr == "kube":
        from flanneld.subnet.kube.store import Kube

        return Kube(options, os.environ)
    from flanneld.subnet.etcd import Etcd

    return Etcd(options)


def local_conf(options: Options) -> str:
    """Write the configuration that ``--network`` and ``--backend`` stand for, or read the file."""
    if not options.network:
        path, why = options.net_config_path, "there is no such file"
        try:
            content = files.read(path)
        except OSError as error:
            content, why = None, error.strerror or str(error)
        if content is None:
            raise UsageError(
                "--subnet-mgr local needs --network CIDR, or a configuration in"
                f" --net-config-path: {path}: {why}"
            )
        return content.decode(errors="replace")
    networks = [part.strip() for part in options.network.split(",") if part.strip()]
    v4 = [network for network in networks if ":" not in network]
    v6 = [network for network in networks if ":" in network]
    if len(v4) > 1 or len(v6) > 1 or not networks:
        raise UsageError(
            f'invalid value "{options.network}" for flag -network: one CIDR, or one of each family'
        )
    document: dict[str, Any] = {"Backend": {"Type": options.backend}}
    document |= {"Network": v4[0]} if v4 else {"EnableIPv4": False}
    if v6:
        document |= {"EnableIPv6": True, "IPv6Network": v6[0]}
    return json.dumps(document)


def _wanted(text: str, conf: config.NetConf) -> Lease | None:
    """Read ``--subnet``; UsageError if it cannot be a subnet of the network."""
    if not text:
        return None
    about = f'invalid value "{text}" for flag -subnet'
    try:
        subnets = [ip_interface(part.strip()).network for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{about}: {error}") from None
    lease = Lease(
        next((one for one in subnets if isinstance(one, IPv4Network)), None),
        next((one for one in subnets if isinstance(one, IPv6Network)), None),
    )
    if lease.subnets != tuple(subnets) or not choice.fits(lease, conf):
        pools = [pool for pool in (conf.pool, conf.pool6) if pool is not None]
        wanted = " and ".join(f"{pool.first} to {pool.last}" for pool in pools)
        raise UsageError(f"{about}: this network has {wanted}")
    return lease
