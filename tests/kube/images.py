"""Images made on the spot from busybox-static: what pods run, and what holds their namespaces."""

from __future__ import annotations

from conformance.real.image import archive

BUSYBOX, PAUSE = "localhost/busybox:1", "localhost/pause:1"


def archives() -> dict[str, bytes]:
    """Give the OCI archives by the names of their images."""
    return {
        BUSYBOX: archive(BUSYBOX),
        PAUSE: archive(PAUSE, ("/bin/sleep", "2147483647")),
    }
