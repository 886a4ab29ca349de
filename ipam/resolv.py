"""resolv.conf as the reference plugin reads it, for `ipam.resolvConf`.

Imported only when the conf names such a file.
"""

from __future__ import annotations

from cni import files
from cni.errors import IO_FAILURE, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.types import DNS


def load(path: str) -> DNS:
    """Read the resolver settings of a file; CNIError 5 when it cannot be read."""
    try:
        return parse(files.read(path).decode("utf-8", "replace"))
    except OSError as error:
        cause = str(error.strerror).lower()
        raise CNIError(
            IO_FAILURE,
            f"failed to read ipam.resolvConf: open {path}: {cause}",
            "correct ipam.resolvConf, or leave it out",
        ) from None


def parse(text: str) -> DNS:
    """Read the text: nameservers and options add up, of domain and search the last line counts.

    Source: resolv.conf(5).
    """
    dns: DNS = {}
    for line in text.splitlines():
        word, *values = line.split() or ("#",)
        if word[0] in "#;" or not values:
            continue
        if word == "nameserver":
            dns.setdefault("nameservers", []).append(values[0])
        elif word == "domain":
            dns["domain"] = values[0]
        elif word == "search":
            dns["search"] = values
        elif word == "options":
            dns.setdefault("options", []).extend(values)
    return dns
