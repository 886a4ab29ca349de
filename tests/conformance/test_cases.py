"""The specification's cases on our pair, the comparison with Go's, and the page of coverage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.__main__ import main
from conformance.options import DEFAULT_BIN_DIR

BIN_DIR = Path(os.environ.get("CNI_FLANNEL_BIN", DEFAULT_BIN_DIR))

on_the_pair = [
    pytest.mark.kernel,
    pytest.mark.frozen,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (BIN_DIR / "flannel").exists(), reason="not built: run ./build.sh"),
]


@pytest.mark.parametrize("area", ["protocol", "flannel", "bridge", "host-local"])
class TestPair:
    pytestmark = on_the_pair

    def test_passes_every_case(self, area: str, capfd: pytest.CaptureFixture[str]) -> None:
        status = main(["run", "--bin-dir", str(BIN_DIR), "--jobs", "2", "--case", f"{area}/*"])
        printed = capfd.readouterr()
        assert printed.err == ""
        assert status == 0
        assert " 0 failed" in printed.out

    def test_differs_from_go_only_as_listed(
        self, area: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        if not Path("/usr/lib/cni/bridge").exists():
            pytest.skip("no /usr/lib/cni/bridge: install containernetworking-plugins")
        plugin = ["--plugin", "host-local"] if area == "protocol" else []
        words = ["compare", "--bin-dir", str(BIN_DIR), "--jobs", "2", "--case", f"{area}/*"]
        status = main([*words, *plugin])
        assert capfd.readouterr().err == ""
        assert status == 0


def test_page_of_coverage_is_up_to_date(capfd: pytest.CaptureFixture[str]) -> None:
    status = main(["coverage", "--check"])
    assert capfd.readouterr().err == ""
    assert status == 0
