"""Images made on the spot from busybox-static: what pods run, and what holds their namespaces."""

from __future__ import annotations

from conformance.real.image import archive

BUSYBOX, PAUSE = "localhost/busybox:1", "localhost/pause:1"


def archives() -> list[bytes]:
    """Give both as OCI archives."""
    return [archive(BUSYBOX), archive(PAUSE, ("/bin/sleep", "2147483647"))]
