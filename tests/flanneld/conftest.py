"""A real etcd for the daemon's tests, and a process of its own for each of them.

gRPC starts threads which it never ends. Other tests of a worker fork, and a fork that has not got
those threads may spin for ever in what they left behind: so they begin and end in a child.
"""

from __future__ import annotations

import faulthandler
import shutil
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol

from tests.flanneld.etcdserver import EtcdServer
from tests.kernel.privatens import in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool:
    config = item.config
    # Made here once: each child would make it anew.
    config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]

    def in_own_process() -> list[object]:
        # pytest cancels it after a failure: a fork has not got its thread, and would wait for it.
        faulthandler.cancel_dump_traceback_later = lambda: None
        # What lies above the test is the parent's, and is left as it is.
        reports = runtestprotocol(item, log=False, nextitem=item.parent)  # type: ignore[arg-type]
        to_text = config.hook.pytest_report_to_serializable
        return [to_text(config=config, report=report) for report in reports]

    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    call = pytest.CallInfo.from_call(lambda: in_child(in_own_process), "call")
    if call.excinfo is None:
        from_text = config.hook.pytest_report_from_serializable
        reports = [from_text(config=config, data=data) for data in call.result or []]
    else:
        reports = [pytest.TestReport.from_item_and_call(item, call)]  # type: ignore[arg-type]
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


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
