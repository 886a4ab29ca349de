"""What every test shares: hypothesis' settings, the workers, and that a skipped test is seen.

A skip is a hole in the proof. It is counted in the closing lines with its reason, and where CI=true
it fails the run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.workers import (
    pytest_runtest_protocol,
    pytest_sessionstart,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

__all__ = [
    "pytest_runtest_protocol",
    "pytest_sessionstart",
    "pytest_xdist_auto_num_workers",
    "pytest_xdist_make_scheduler",
]

IN_CI = os.environ.get("CI") == "true"

# Tests of the daemon leave gRPC's threads behind, and tests in namespaces of their own fork: a
# child, which has nothing to do with gRPC, must not wait for those threads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# A two-core machine under load is no reason for a property to fail; its examples decide alone.
hypothesis.settings.register_profile(
    "project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")


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
