"""Where a server listens, and how its URL is written.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """A host and a port.  ``name`` is what the server's certificate is for, "" if it is the host.

    ``base`` is what each path begins with, ``user`` the ``name:password`` of a URL, "" for none.
    """

    host: str
    port: int
    secure: bool = True
    name: str = ""
    base: str = ""
    user: str = ""

    @property
    def authority(self) -> str:
        """Host and port as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.base}"


def parse(url: str) -> Place:
    """Read ``http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH]``; ValueError says what is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("it must begin with http:// or https://")
    if not parts.hostname or parts.query or parts.fragment or any(map(str.isspace, url)):
        raise ValueError("it must be like https://HOST:PORT")
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    if not port:
        raise ValueError("0 is no port")
    user = parts.netloc.rpartition("@")[0]
    base = parts.path.rstrip("/")
    return Place(parts.hostname, port, parts.scheme == "https", base=base, user=user)
