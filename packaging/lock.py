"""Write packaging/locks/GROUP.txt: the pins of pyproject.toml with the hashes of their files.

`./build.sh lock` runs this with pip-tools, when a pin has changed. `pip install --require-hashes`
then takes those files only. Every file of a release is listed, for each system and Python.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "packaging" / "locks"
GROUPS = ("build", "test", "fuzz", "dev")  # what build.sh installs


def pins(groups: dict[str, list[Any]], group: str) -> list[str]:
    """The pins of a group, those of the groups in it included."""
    found = set()
    for entry in groups[group]:
        found.update([entry] if isinstance(entry, str) else pins(groups, entry["include-group"]))
    return sorted(found)


def main() -> None:
    """Write all of them."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    for group in GROUPS:
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder, "wanted.in")
            wanted.write_text("\n".join(pins(groups, group)) + "\n", "utf-8")
            words = ["--generate-hashes", "--allow-unsafe", "--no-header", "--no-annotate"]
            words += ["--strip-extras", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
            output = ["--output-file", str(FOLDER / f"{group}.txt"), str(wanted)]
            subprocess.run(
                [sys.executable, "-m", "piptools", "compile", *words, *output], check=True
            )


if __name__ == "__main__":
    main()
