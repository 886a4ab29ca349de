"""What a runtime may pass: required variables and valid names (spec sections 2 and 3).

Pure. Names are matched whole; lengths count bytes. The wording is the reference library's
(pkg/utils/utils.go). No `re`: it costs 5 ms.
"""

from __future__ import annotations

from cni.errors import INVALID_ENVIRONMENT, INVALID_NETWORK_CONFIG, CNIError
from cni.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Names become file names, and runtimes join three of them with '-' into one of 255 bytes.
NAME_BYTES = 200
IFNAME_BYTES = 15  # IFNAMSIZ less the final NUL

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FIRST = frozenset(_LETTERS + _LETTERS.upper() + "0123456789")
_REST = _FIRST | frozenset("_.-")

# CNI_PATH is optional but for GC. The reference library wants it always.
_ATTACHMENT = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
_REQUIRED = {
    "ADD": _ATTACHMENT,
    "CHECK": _ATTACHMENT,
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
}


def environment(environ: Mapping[str, str]) -> str:
    """Check the variables that the verb needs and return the verb; CNIError 4.

    An invalid value is reported before a missing one. Unknown verbs need nothing here: they are
    refused after the conf was read.
    """
    command = environ.get("CNI_COMMAND", "")
    required = _REQUIRED.get(command, () if command else ("CNI_COMMAND",))
    for name, check in (("CNI_CONTAINERID", container_id), ("CNI_IFNAME", interface_name)):
        if name in required and environ.get(name):
            check(environ[name])
    missing = [name for name in required if not environ.get(name)]
    if missing:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f"required env variables [{','.join(missing)}] missing",
            f"{command or 'every call'} needs them to be set and not empty",
        )
    return command


def is_name(text: str) -> bool:
    """Whether it is a letter or digit, then letters, digits, '_', '.', '-'."""
    return text[:1] in _FIRST and _REST.issuperset(text)


def container_id(text: str) -> None:
    """CNIError 4 unless it is a valid container ID."""
    if not is_name(text):
        raise CNIError(INVALID_ENVIRONMENT, "invalid characters in containerID", text)
    if len(text) > NAME_BYTES:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f"containerID is too long: {len(text)} bytes",
            f"it becomes part of file names and may have {NAME_BYTES} bytes",
        )


def interface_name(text: str) -> None:
    """CNIError 4 unless the kernel would take it as the name of an interface."""
    if len(text.encode("utf-8", "surrogateescape")) > IFNAME_BYTES:
        raise CNIError(
            INVALID_ENVIRONMENT,
            "interface name is too long",
            "interface name should be less than 16 characters",
        )
    if text in (".", ".."):
        raise CNIError(INVALID_ENVIRONMENT, "interface name is . or ..", text)
    if any(char in "/:" or char.isspace() for char in text):
        raise CNIError(
            INVALID_ENVIRONMENT,
            "interface name contains / or : or whitespace characters",
            f"CNI_IFNAME is {dumps(text)}",
        )


def not_a_new_link(name: str) -> str:
    """Why the kernel would make no link of this very name, in a few words; "" if it would.

    Its own rules (dev_valid_name, net/core/dev.c), which go by bytes: 0xa0 is a blank. Beyond
    them, it makes of "eth%d" a link with a number; and /proc/sys has folders of its own called
    all and default where those of links are.
    """
    octets = name.encode("utf-8", "surrogateescape")
    if name in (".", ".."):
        return "that is a folder's name"
    if not 1 <= len(octets) <= IFNAME_BYTES:
        return f"numerical result out of range: a link's name has 1 to {IFNAME_BYTES} bytes"
    if name in ("all", "default"):
        return "the kernel's settings have that name for something else than a link"
    if any(char in "/:%" or char.isspace() for char in name):
        return "contains / or : or % or whitespace characters"
    if 0xA0 in octets or 0 in octets:
        return "contains a byte (a0 or 00) that the kernel takes in no name"
    return ""


def one_plugin(conf: Mapping[str, Any]) -> None:
    """CNIError 7 for a list of plugins, whose settings nobody would see."""
    if isinstance(conf.get("plugins"), list) and not conf.get("type"):
        raise CNIError(
            INVALID_NETWORK_CONFIG,
            'the configuration has "plugins" and no "type": it is a list of plugins (.conflist)',
            "a runtime reads the list and calls each plugin with its own part: pass one entry of "
            "'plugins', with the list's 'name' and 'cniVersion' added",
        )


def network_name(conf: Mapping[str, Any]) -> None:
    """CNIError 7 unless the conf has a valid `name`."""
    name = conf.get("name", "")
    if not isinstance(name, str):
        raise CNIError(
            INVALID_NETWORK_CONFIG, f"network name must be a string, not {dumps(name)[:60]}"
        )
    if not name:
        raise CNIError(
            INVALID_NETWORK_CONFIG, "missing network name", 'the conf needs a key "name"'
        )
    if not is_name(name):
        raise CNIError(
            INVALID_NETWORK_CONFIG, "invalid characters found in network name", name[:300]
        )
    if len(name) > NAME_BYTES:
        raise CNIError(
            INVALID_NETWORK_CONFIG,
            f"network name is too long: {len(name)} bytes",
            f"it becomes part of file names and may have {NAME_BYTES} bytes: {name}",
        )
