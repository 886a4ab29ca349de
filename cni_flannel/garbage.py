"""GC of the ``flannel`` plugin: the delegates' own garbage collection, then the state files.

A state file tells which delegate an attachment had: each kind is asked once.  A file goes when
its attachment is not listed and every delegate succeeded; without a list nothing is proven.
Imports: the parts of this package.
"""

from __future__ import annotations

from cni_flannel import scratch
from cni_flannel.bridge.removal import Attempts, valid_attachments
from cni_flannel.scratch import Scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni.types import Plugin
    from cni.types import Args


def collect(
    args: Args, data_dir: str, plugin_of: Callable[[dict[str, Any]], Plugin]
) -> None:
    """Remove what is left of attachments that are not listed; ``args.conf`` is a delegate's."""
    network = args.conf["name"]
    attempts = Attempts(f"collect garbage of network {network}")
    valid = valid_attachments(args)
    kept = [entry for entry in scratch.listed(data_dir) if entry[2].get("name") == network]
    confs = {str(conf.get("type")): conf for _, _, conf in kept}
    confs[str(args.conf["type"])] = args.conf
    for conf in confs.values():
        asked = {**conf, **{key: args.conf[key] for key in _OF_THE_CALL if key in args.conf}}
        attempts.run(_collect_of, plugin_of, args.replaced(conf=asked))
    if valid is not None and attempts.clean:
        for container_id, ifname, _ in kept:
            if (container_id, ifname) not in valid:
                attempts.run(Scratch(data_dir, network, container_id, ifname).remove)
    attempts.finish()


_OF_THE_CALL = ("cniVersion", "cni.dev/valid-attachments", "runtimeConfig")


def _collect_of(plugin_of: Callable[[dict[str, Any]], Plugin], args: Args) -> None:
    plugin_of(args.conf).cmd_gc(args)
