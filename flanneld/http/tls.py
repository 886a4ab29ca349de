"""TLS as files say it: read again when one of them has changed, for connections from then on."""

from __future__ import annotations

import os
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld.http.errors import unanswered

if TYPE_CHECKING:
    from flanneld.http.place import Place


@dataclass(frozen=True, slots=True)
class TLS:
    """Paths of PEM files, or what would be in them; "" and b"" for none.

    Without authorities the system's count.  ``insecure``: any certificate will do.
    """

    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""
    ca: bytes = b""
    cert: bytes = b""
    key: bytes = b""
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """Read it all.  OSError (ssl.SSLError is one) for what cannot be read or used."""
        context = ssl.create_default_context(
            cafile=self.cafile or None, cadata=self.ca.decode("ascii", "replace") or None
        )
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        with ExitStack() as stack:
            cert = self.certfile or _in_memory(self.cert, stack)
            if cert:
                context.load_cert_chain(cert, self.keyfile or _in_memory(self.key, stack) or None)
        return context


class Contexts:
    """The context for these files as they are now."""

    def __init__(self) -> None:
        self._state: object = None
        self._context: ssl.SSLContext | None = None

    def now(self, tls: TLS, place: Place) -> ssl.SSLContext:
        """Give it, made anew if a file has changed; Unanswered if they cannot be read or used."""
        with unanswered(place, OSError, ValueError):
            state = tls, *(_state(path) for path in (tls.cafile, tls.certfile, tls.keyfile) if path)
            if self._context is None or state != self._state:
                self._context, self._state = tls.context(), state
        return self._context


def _state(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _in_memory(content: bytes, stack: ExitStack) -> str:
    """Give a path of a file that is on no disk; "" for no content."""
    if not content:
        return ""
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, content)
    return f"/proc/self/fd/{fd}"
