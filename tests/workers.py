"""Which worker runs what, and what happens when one dies: one test fails, and the run goes on.

A test has a time limit (pytest-timeout: an exception in the main thread). Code under test can
swallow that, or never come back to Python; then its worker ends, and the next one goes on.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from typing import TYPE_CHECKING

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

GRACE_S = 60.0  # for a test to end after its limit
AHEAD = 2  # a worker begins a test when it knows the next one
PER_CORE = 2  # half of the tests' time is waiting: for events, timeouts, other programs


class OneCluster(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """A worker that is free gets the next test; those of tests/kube share a cluster, and a worker.

    (pytest-xdist's own way to say so, --dist loadgroup, is blind with pytest 9.)
    """

    def _split_scope(self, nodeid: str) -> str:
        folder = "tests/kube/"
        return folder if nodeid.startswith(folder) else nodeid

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a worker's tests back, without those it has run and the one it died of.

        With those, as pytest-xdist does it, a run never ends: nobody reports them again.
        """
        units = self.assigned_work.pop(node)
        left = [nodeid for unit in units.values() for nodeid, done in unit.items() if not done]
        for nodeid in left[1:]:
            self.workqueue.setdefault(self._split_scope(nodeid), {})[nodeid] = False
        for other in self.assigned_work:
            self._reschedule(other)
        return left[0] if left else None

    def _reschedule(self, node: WorkerController) -> None:
        """Give a worker enough to go on; a new one, in place of one that died, has nothing yet."""
        if node not in self.registered_collections:
            return  # it does not know the tests yet, and asks when it does
        while (
            self.workqueue
            and not node.shutting_down
            and self._pending_of(self.assigned_work[node]) <= AHEAD
        ):
            self._assign_work_unit(node)
        if not self.workqueue:
            node.shutdown()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:  # noqa: ARG001 - its name
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return PER_CORE * len(os.sched_getaffinity(0))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneCluster:
    config.option.loadscopereorder = False  # else the largest scope is the first
    return OneCluster(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Hear the signals that a run in the background ignores: programs under test inherit that."""
    if hasattr(session.config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """End a worker whose test does not end."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    marker = item.get_closest_marker("timeout")
    limit_s = float(marker.args[0] if marker else item.config.getini("timeout"))
    file = item.config.stash[fault_handler_stderr_fd_key]
    faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True, file=file)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
