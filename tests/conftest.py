"""What every test shares: hypothesis' settings, who runs what, and that a skipped test is seen.

A skip is a hole in the proof. It is counted in the closing lines with its reason, and where CI=true
it fails the run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from xdist.remote import Producer

IN_CI = os.environ.get("CI") == "true"

# Tests of the daemon leave gRPC's threads behind, and tests in namespaces of their own fork: a
# child, which has nothing to do with gRPC, must not wait for those threads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# A two-core machine under load is no reason for a property to fail; its examples decide alone.
hypothesis.settings.register_profile(
    "project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")


class OneCluster(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """A worker that is free gets the next test; those of tests/kube share a cluster, and a worker.

    (pytest-xdist's own way to say so, --dist loadgroup, is blind with pytest 9.)
    """

    def _split_scope(self, nodeid: str) -> str:
        folder = "tests/kube/"
        return folder if nodeid.startswith(folder) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneCluster:
    config.option.loadscopereorder = False  # else the largest scope is the first
    return OneCluster(config, log)


def skipped(reporter: TerminalReporter) -> int:
    return len(reporter.stats.get("skipped", []))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and reporter is not None and skipped(reporter) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    count = skipped(terminalreporter)
    if count:
        verdict = "in CI that is a failure" if IN_CI else "in CI that would be a failure"
        terminalreporter.write_line(f"{count} skipped: {verdict}", yellow=True)
