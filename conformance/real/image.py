"""A container image made on the spot: busybox, static, as an OCI archive (image-spec 1.0).

One layer, one manifest, one index, in a tar archive; nothing is fetched. /bin has busybox and
links to it for its commands; /page is what its web server shows.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "docker.io/conformance/busybox:1"
BUSYBOX = Path("/bin/busybox")
COMMANDS = ("sh", "httpd", "wget", "ip", "cat", "echo", "sleep", "mkdir")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


def archive(name: str = NAME, command: Sequence[str] = ("/bin/sh",)) -> bytes:
    """Return the OCI archive, as `ctr image import` and `podman load` read it."""
    layer = _layer()
    packed = gzip.compress(layer, mtime=0)
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": list(command)},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(f"{_OCI}.config.v1+json", config),
            "layers": [_descriptor(f"{_OCI}.layer.v1.tar+gzip", packed)],
        }
    )
    entry = _descriptor(f"{_OCI}.manifest.v1+json", manifest) | {
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name,
        },
    }
    files = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (config, packed, manifest)}
    files["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    files["index.json"] = _json({"schemaVersion": 2, "manifests": [entry]})
    return _tar(files)


def _layer() -> bytes:
    links = {f"bin/{command}": "busybox" for command in COMMANDS}
    folders = ("proc", "sys", "dev", "etc", "tmp", "page")
    return _tar({"bin/busybox": BUSYBOX.read_bytes()}, links, folders)


def _tar(
    files: dict[str, bytes], links: dict[str, str] | None = None, folders: tuple[str, ...] = ()
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, content in files.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(content), 0o755
            tar.addfile(file, io.BytesIO(content))
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return buffer.getvalue()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
