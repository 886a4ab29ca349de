"""docs/flanneld.md has a row for each flag with its default, and names each figure and command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flanneld.__main__ import COMMANDS
from flanneld.metrics import Metrics
from flanneld.options import FLAGS

if TYPE_CHECKING:
    from flanneld.flags import Flag

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "flanneld.md").read_text()
TABLE = PAGE.partition("## Flags")[2].partition("\n## ")[0].splitlines()


def row(name: str) -> str:
    """The row of the table of flags that has this name in its first cell or, of `v`, its last."""
    names = ((line, line.split("|")[1]) for line in TABLE if line.startswith("|"))
    found = [line for line, cell in names if f"`{name}`" in cell]
    return found[0] if found else next(line for line in TABLE if f"`{name}`" in line)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_each_flag_has_its_row(flag: Flag) -> None:
    found = row(flag.name)
    if flag.refusal:
        assert "refused" in found
    elif not isinstance(flag.default, bool | tuple) and flag.default != "":
        assert f"`{flag.default}`" in found


def test_each_figure_is_named() -> None:
    metrics = Metrics()
    metrics.drop({"a reason": 1})
    kinds = [line for line in metrics.text().decode().splitlines() if line.startswith("# TYPE")]
    assert len(kinds) > 5
    for line in kinds:
        assert f"`{line.split()[2]}" in PAGE


def test_each_command_is_named() -> None:
    for command in COMMANDS:
        assert f"| `flanneld {command}" in PAGE


def test_the_build_is_a_figure() -> None:
    lines = Metrics().text().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("flannel_build_info{")]
    assert line.endswith("} 1.0")
    for label in ("version", "commit", "architecture", "python"):
        assert f'{label}="' in line
