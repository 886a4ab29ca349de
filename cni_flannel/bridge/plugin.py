"""The ``bridge`` plugin: a veth pair between a pod and a bridge, with addresses from IPAM.

The verbs as plain functions: ``cmd_add(args) -> result`` and its siblings change nothing of
the process.  ``flannel`` calls them with the configuration it renders; under the name
``bridge`` they are a plugin by themselves, conf by conf like Go's.  Each verb imports what it
needs when it is called: no call pays for the others.
Imports: this package's configuration, ``ipam``.
"""

from __future__ import annotations

from cni_flannel.bridge import conf as bridge_conf
from ipam import plugin as host_local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.types import Args, Plugin

ABOUT = "CNI plugin bridge (cni-flannel)"


def cmd_add(args: Args) -> dict[str, Any]:
    """Attach the container; the result in the shape of 1.1.0.  On failure nothing is left."""
    from cni_flannel.bridge import addition

    conf = bridge_conf.parse(args)
    return addition.add(args, conf, ipam(conf.ipam_type))


def cmd_del(args: Args) -> None:
    """Detach the container; whatever is gone already is fine."""
    from cni_flannel.bridge import removal

    conf = bridge_conf.RemovalConf(args.conf)
    removal.remove(args, conf, ipam(conf.ipam_type))


def cmd_check(args: Args) -> None:
    """Compare the attachment with its result and the kernel; CNIError 106 lists what differs."""
    from cni_flannel.bridge import verify

    conf = bridge_conf.parse(args)
    verify.check(args, conf, ipam(conf.ipam_type))


def cmd_gc(args: Args) -> None:
    """Remove what belongs to attachments that the runtime does not list."""
    from cni_flannel.bridge import removal

    conf = bridge_conf.RemovalConf(args.conf)
    removal.collect(args, conf, ipam(conf.ipam_type))


def cmd_status(args: Args) -> None:
    """CNIError 50 if an ADD would fail now."""
    from cni_flannel.bridge import readiness

    conf = bridge_conf.parse(args)
    readiness.require(args, conf, ipam(conf.ipam_type))


def ipam(kind: str) -> Plugin | None:
    """The IPAM plugin of that type: ours in this process, any other as an executable."""
    if not kind or kind in bridge_conf.NO_IPAM:  # an ADD with one of these has been refused
        return None
    if kind == bridge_conf.HOST_LOCAL:
        return host_local
    from cni import invoke  # only foreign plugins are executed

    return invoke.Foreign(kind)
