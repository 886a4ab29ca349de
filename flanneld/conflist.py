"""The chain of plugins that the node's container runtime reads: put there when pods can work.

A runtime that finds it calls the plugins at once, so it comes last. As a symbolic link into the
folder of subnet.env, which a boot empties, it leads nowhere after one: the runtime has no network
until the daemon is ready again. The link is renamed into its place each time that something has
changed, since a runtime watches that folder alone.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from typing import TYPE_CHECKING

from flanneld import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.options import Options
    from flanneld.readiness import Readiness

_log = logging.getLogger(__name__)

PART = "conflist"
PLACE = "/etc/cni/net.d/10-flannel.conflist"
_READ = (".conf", ".conflist", ".json")  # what a runtime takes for a configuration


class Conflist:
    """One at a place of the node, from a file that somebody wrote for it."""

    def __init__(self, options: Options, readiness: Readiness) -> None:
        self._place, self._source = options.cni_conflist, options.cni_conflist_from
        self._readiness = readiness
        self._target = self._place
        if options.cni_conflist_link:
            self._target = _target(self._place, options.subnet_file)
        self._is_told = False  # a killed daemon may have written it, and not told the runtime

    def keep(self) -> None:
        """See that it is there, once nothing else is in the way of pods; report what is wrong."""
        if not self._place or not self._readiness.ready_but(PART):
            return
        try:
            content = files.read(self._source)
            if content is None:
                raise ValueError("there is no such file")
            _check(content)
            self._put(content)
        except (OSError, ValueError) as error:
            what = f"{self._place}, which the container runtime reads, is not written"
            self._readiness.report(PART, [f"{what}: {self._source}: {error}"])
        else:
            self._readiness.report(PART, (), self._before())

    def _put(self, content: bytes) -> None:
        os.makedirs(os.path.dirname(self._place), mode=0o755, exist_ok=True)
        if self._target == self._place:
            changed = os.path.islink(self._place)
            if changed:
                files.write(self._place, content)  # which replaces the link, not what it leads to
            else:
                changed = files.update(self._place, content)
        else:
            changed = files.update(self._target, content)
            if changed or not self._is_told or _destination(self._place) != self._target:
                _link(self._target, self._place)
                changed = True
        self._is_told = True
        if changed:
            _log.info("written", extra={"file": self._place})

    def _before(self) -> list[str]:
        folder, own = os.path.split(self._place)
        first = min((name for name in os.listdir(folder) if name.endswith(_READ)), default=own)
        if first >= own:
            return []
        return [
            (
                f"{folder}/{first} sorts before {own}: a runtime that takes the first file uses"
                " that, and pods are not of this network; move it away unless it is Multus'"
            )
        ]


def ours(place: str, subnet_file: str) -> Iterator[str]:
    """Give what there is of it on a node, in the order in which it goes; not another network's."""
    target = _target(place, subnet_file)
    leads_there = _destination(place) == target
    if leads_there or (not os.path.islink(place) and _calls_flannel(place)):
        yield place
        yield from files.unfinished(place)
    yield target


def _target(place: str, subnet_file: str) -> str:
    folder = os.path.dirname(os.path.abspath(subnet_file))
    return os.path.join(folder, os.path.basename(place))


def _calls_flannel(path: str) -> bool:
    try:
        content = files.read(path) or b""
        _check(content)
    except (OSError, ValueError):
        return False
    return any(plugin["type"] == "flannel" for plugin in json.loads(content)["plugins"])


def _check(content: bytes) -> None:
    """ValueError unless a runtime would take it for a list of plugins."""
    conf = json.loads(content)
    plugins = conf.get("plugins") if isinstance(conf, dict) and conf.get("name") else None
    if not isinstance(plugins, list) or not plugins or not all(map(_is_plugin, plugins)):
        raise ValueError('it is no list of plugins, with "name", and "type" in each of "plugins"')


def _is_plugin(conf: object) -> bool:
    return isinstance(conf, dict) and isinstance(conf.get("type"), str)


def _destination(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _link(target: str, path: str) -> None:
    """Put a link in place whole; what is there goes."""
    folder, name = os.path.split(path)
    link = f"{folder}/.{name}.{secrets.token_hex(4)}"
    os.symlink(target, link)
    try:
        os.rename(link, path)
    except BaseException:
        os.unlink(link)
        raise
