"""A container image made on the spot: busybox, static; nothing is fetched.

/bin has busybox and links to it for its commands; /page is what its web server shows.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.real import oci
from conformance.real.oci import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "docker.io/conformance/busybox:1"
BUSYBOX = Path("/bin/busybox")
COMMANDS = ("sh", "httpd", "wget", "ip", "cat", "echo", "sleep", "mkdir")


def archive(name: str = NAME, command: Sequence[str] = ("/bin/sh",)) -> bytes:
    """Return the OCI archive, as `ctr image import` and `podman load` read it."""
    machine = platform.machine()
    folders = map(Entry, ("proc", "sys", "dev", "etc", "tmp", "page"))
    links = (Entry(f"bin/{command}", link="busybox") for command in COMMANDS)
    layer = oci.layer([*folders, Entry("bin/busybox", BUSYBOX.read_bytes()), *links])
    architecture = oci.ARCHITECTURES.get(machine, machine)
    return oci.image(name, layer, architecture, Env=["PATH=/bin"], Cmd=list(command))
