"""GC of the ``flannel`` plugin: the delegates' own garbage collection, then the state files.

A state file tells which delegate an attachment had: each kind is asked once.  A file goes when
its attachment is not listed and every delegate succeeded; without a list nothing is proven.
Imports: the parts of this package, ``ipam``.
"""

from __future__ import annotations

from cni_flannel import scratch
from cni_flannel.bridge.removal import Attempts
from cni_flannel.netconf import VALID_ATTACHMENTS
from cni_flannel.scratch import FIRST_IFNAME, Scratch
from ipam.verify import valid_attachments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni.errors import CNIError
    from cni.types import Args, Plugin

_OF_THE_CALL = ("cniVersion", VALID_ATTACHMENTS, "runtimeConfig")


def collect(args: Args, data_dir: str, plugin_of: Callable[[dict[str, Any]], Plugin]) -> None:
    """Remove what is left of attachments that are not listed; ``args.conf`` is a delegate's."""
    network = args.conf["name"]
    attempts = Attempts(f"collect garbage of network {network}")
    valid = valid_attachments(args.conf)
    unreadable: list[CNIError] = []
    stored = scratch.listed(data_dir, unreadable)
    found = [entry for entry in stored if entry[2].get("name") == network]
    confs = {conf["type"]: conf for _, _, conf in found}
    confs[args.conf["type"]] = args.conf
    for conf in confs.values():
        asked = {**conf, **{key: args.conf[key] for key in _OF_THE_CALL if key in args.conf}}
        attempts.run(_collect_of, plugin_of, args.replaced(conf=asked))
    if valid is not None and attempts.clean:
        for container_id, ifname in stale({entry[:2] for entry in found}, valid):
            attempts.run(Scratch(data_dir, network, container_id, ifname).remove)
    attempts.keep(unreadable)
    attempts.finish()


def stale(stored: set[tuple[str, str]], valid: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """The stored attachments that are not valid, in order.

    A file that names no interface may be the Go plugin's of any: it stays as long as a valid
    attachment of the container has no file of its own.
    """
    homeless = {container_id for container_id, ifname in valid - stored}
    return sorted(
        (container_id, ifname)
        for container_id, ifname in stored - valid
        if ifname != FIRST_IFNAME or container_id not in homeless
    )


def _collect_of(plugin_of: Callable[[dict[str, Any]], Plugin], args: Args) -> None:
    plugin_of(args.conf).cmd_gc(args)
