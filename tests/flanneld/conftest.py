"""A real etcd for the daemon's tests."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.flanneld.etcdserver import EtcdServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def new_etcd(tmp_path: Path) -> Iterator[Callable[..., EtcdServer]]:
    """Start etcd servers; keywords are EtcdServer's fields."""
    for program in ("etcd", "etcdctl", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install etcd-server etcd-client")
    servers: list[EtcdServer] = []

    def start(**fields: object) -> EtcdServer:
        folder = tmp_path / f"etcd{len(servers)}"
        folder.mkdir()
        servers.append(EtcdServer(folder, **fields))  # type: ignore[arg-type]
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def etcd(new_etcd: Callable[..., EtcdServer]) -> EtcdServer:
    """One etcd without TLS and users."""
    return new_etcd()
