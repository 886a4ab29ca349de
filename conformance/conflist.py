"""A network configuration list and an attachment to it, as a runtime holds them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

NEWEST = "1.1.0"


class UnsupportedError(Exception):
    """The list's version, or a folder without the plugin, does not allow what was asked."""


class Conflist(NamedTuple):
    """A network configuration list; `text` is the file as it was read, for the cache."""

    name: str
    version: str
    plugins: list[dict[str, Any]]
    disable_check: bool
    disable_gc: bool
    text: bytes

    @classmethod
    def parse(cls, text: bytes) -> Conflist:
        """Read a list; of `cniVersion` and `cniVersions` the newest that this runtime knows."""
        conf = json.loads(text)
        if not conf.get("name") or not conf.get("plugins"):
            raise UnsupportedError("a list needs a name and plugins")
        offered = [conf.get("cniVersion") or "0.1.0", *conf.get("cniVersions", [])]
        known = [version for version in offered if number(version) <= number(NEWEST)]
        if not known:
            raise UnsupportedError(f"no version of {offered} is known")
        return cls(
            conf["name"],
            max(known, key=number),
            conf["plugins"],
            _flag(conf.get("disableCheck")),
            _flag(conf.get("disableGC")),
            text,
        )


class Attachment(NamedTuple):
    """One interface of one container, and what the runtime says about it.

    `args` are the pairs of CNI_ARGS; `capabilities` maps a capability to what it is set to.
    """

    container_id: str
    netns: str
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capabilities: dict[str, Any] = {}  # noqa: RUF012 -- never changed

    def valid(self) -> dict[str, str]:
        """Name it as a GC's list of valid attachments does."""
        return {"containerID": self.container_id, "ifname": self.ifname}


def number(version: str) -> tuple[int, ...]:
    """Make a version comparable."""
    return tuple(int(part) for part in version.split("."))


def _flag(value: Any) -> bool:
    """Read a switch that some write as a string."""
    return value is True or (isinstance(value, str) and value.lower() in {"true", "1"})
