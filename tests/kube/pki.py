"""The cluster's certificates and kubeconfigs, made by openssl as kubeadm lays them out."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from conformance.world import SYSTEM_PATH

if TYPE_CHECKING:
    from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_DAYS = ("-days", "2")


class Authority:
    """A certificate authority in a folder: `ca.crt`, and NAME.crt with NAME.key for each name.

    ``seen`` is the folder's path in the cluster, for flags and kubeconfigs.
    """

    def __init__(self, folder: Path, seen: str) -> None:
        self.folder, self.seen = folder, seen
        _openssl(
            *("req", "-x509", *_KEY, *_DAYS, "-subj", "/CN=kubernetes"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt")),
        )

    def path(self, file: str) -> str:
        """Give a file's path in the cluster."""
        return f"{self.seen}/{file}"

    def issue(self, name: str, subject: str, *names: str) -> None:
        """Issue NAME.crt for a subject like /O=system:masters/CN=admin, and a server's names."""
        key, request, made = (str(self.folder / f"{name}.{end}") for end in ("key", "csr", "crt"))
        _openssl("req", "-new", *_KEY, "-subj", subject, "-keyout", key, "-out", request)
        extensions = [
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=clientAuth,serverAuth",
        ]
        extensions += [f"subjectAltName={','.join(names)}"] if names else []
        _openssl(
            *("x509", "-req", *_DAYS, "-in", request, "-out", made),
            *("-CA", str(self.folder / "ca.crt"), "-CAkey", str(self.folder / "ca.key")),
            *("-set_serial", str(int.from_bytes(os.urandom(15))), "-extfile", "/dev/stdin"),
            text="\n".join(extensions),
        )

    def sign_tokens(self, name: str) -> None:
        """Make NAME.key, which signs tokens, and NAME.pub, which proves them."""
        key = str(self.folder / f"{name}.key")
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        _openssl("ec", "-in", key, "-pubout", "-out", str(self.folder / f"{name}.pub"))

    def kubeconfig(self, name: str, server: str, subject: str, *names: str) -> str:
        """Issue a certificate and write NAME.conf, which uses it; its path in the cluster."""
        self.issue(name, subject, *names)
        document: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "kubernetes",
                    "cluster": {"server": server, "certificate-authority": self.path("ca.crt")},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate": self.path(f"{name}.crt"),
                        "client-key": self.path(f"{name}.key"),
                    },
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": "kubernetes", "user": name}}],
            "current-context": name,
        }
        (self.folder / f"{name}.conf").write_text(json.dumps(document, indent=1))
        return self.path(f"{name}.conf")


def _openssl(*argv: str, text: str = "") -> None:
    done = subprocess.run(
        ["openssl", *argv],
        input=text,
        capture_output=True,
        text=True,
        env={"PATH": SYSTEM_PATH},
        check=False,
    )
    assert done.returncode == 0, (argv, done.stderr)
