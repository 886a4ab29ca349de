"""Where etcd listens and how it is spoken to: ``--etcd-endpoints`` and the TLS files.

Opens no connection by itself: a channel connects when it is first used.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from flanneld.flags import UsageError

_URL = re.compile(r"(?P<scheme>https?)://(?P<host>[^/:\s]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})/?")
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),  # etcd takes one in 5 s (--grpc-keepalive-min-time)
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_http_proxy", 0),  # a node's proxy is for the world outside
    ("grpc.max_receive_message_length", -1),  # all leases of a network come in one answer
)


@dataclass(frozen=True, slots=True)
class TLS:
    """Paths of PEM files, "" for none; without ``cafile`` the system's authorities count."""

    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; OSError."""
        cafile = self.cafile or ssl.get_default_verify_paths().cafile or ""
        return grpc.ssl_channel_credentials(
            root_certificates=_content(cafile),
            private_key=_content(self.keyfile),
            certificate_chain=_content(self.certfile),
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One member of the cluster: ``host:port``, spoken to with TLS or in the clear."""

    target: str
    secure: bool

    def channel(self, tls: TLS) -> grpc.aio.Channel:
        """Make a channel to it; OSError if a TLS file cannot be read."""
        if self.secure:
            return grpc.aio.secure_channel(self.target, tls.credentials(), options=_OPTIONS)
        return grpc.aio.insecure_channel(self.target, options=_OPTIONS)

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.target}"


def parse(url: str) -> Endpoint:
    """Read ``http://HOST:PORT`` or ``https://HOST:PORT``; UsageError for anything else."""
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match["port"]) <= 65535:
        raise UsageError(
            f'invalid value "{url}" for flag -etcd-endpoints: write http://HOST:PORT or'
            " https://HOST:PORT"
        )
    return Endpoint(f"{match['host']}:{match['port']}", match["scheme"] == "https")


def _content(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
