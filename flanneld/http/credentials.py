"""Who this client is: certificates, and the Authorization header, each as fresh as its source."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flanneld import files
from flanneld.http.tls import TLS

if TYPE_CHECKING:
    from collections.abc import Mapping

_FRESH_S = 60.0  # so long a file is not read again: the kubelet replaces it well before its end
_COMMAND_S = 60.0


@dataclass(frozen=True, slots=True)
class Command:
    """A program that prints credentials, as ``exec`` of a kubeconfig names it."""

    argv: tuple[str, ...]
    version: str
    environ: Mapping[str, str] = field(default_factory=dict)
    cluster: Mapping[str, Any] | None = None

    async def run(self) -> dict[str, Any]:
        """Give the ``status`` of the ExecCredential that it prints.  OSError, ValueError."""
        spec: dict[str, Any] = {"interactive": False}
        if self.cluster is not None:
            spec["cluster"] = self.cluster
        asked = {"apiVersion": self.version, "kind": "ExecCredential", "spec": spec}
        process = await asyncio.create_subprocess_exec(
            *self.argv,
            env={**os.environ, **self.environ, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_COMMAND_S):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise OSError(f"{' '.join(self.argv)} has ended with status {process.returncode}")
        status = json.loads(printed).get("status")
        if not isinstance(status, dict):
            raise ValueError(  # noqa: TRY004 - one cause among others
                f"{' '.join(self.argv)} prints no ExecCredential with a status"
            )
        return status


class Credentials:
    """TLS as it is to be used now, and one source of the header: a text, a file, a command."""

    def __init__(
        self,
        tls: TLS | None = None,
        header: str = "",
        file: str = "",
        command: Command | None = None,
    ) -> None:
        self.tls, self._header = tls or TLS(), header
        self._file, self._command = file, command
        self._until = 0.0

    async def authorization(self, *, anew: bool = False) -> str:
        """Give the header's text, "" for none; ``anew`` if the last was refused.

        OSError, ValueError.
        """
        if not anew and time.monotonic() < self._until:
            return self._header
        if self._file:
            self._header = f"Bearer {_token(self._file)}"
            self._until = time.monotonic() + _FRESH_S
        elif self._command is not None:
            status = await self._command.run()
            token, ends = status.get("token"), status.get("expirationTimestamp")
            cert, key = status.get("clientCertificateData"), status.get("clientKeyData")
            self._header = f"Bearer {token}" if token else ""
            if cert and key:
                self.tls = replace(self.tls, cert=cert.encode(), key=key.encode())
            left = datetime.fromisoformat(ends).timestamp() - time.time() if ends else float("inf")
            self._until = time.monotonic() + left
        return self._header


def _token(path: str) -> str:
    token = (files.read(path) or b"").decode("ascii", "replace").strip()
    if not token:
        raise ValueError(f"{path} holds no token")
    return token
