"""Options that every verb has: which binaries are called, and in which mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.resident import MODE
from conformance.words import Words

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

DEFAULT_BIN_DIR = Path(__file__).resolve().parents[1] / "dist" / "cni-flannel"


class Parser(Words):
    """A parser with `--bin-dir` and `--resident`.

    Parsed arguments have `bin_dir`, the folder whose programs are called, in the mode's own name.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_argument("--bin-dir", type=Path, default=DEFAULT_BIN_DIR, help="folder of plugins")
        self.add_argument(
            "--resident",
            action="store_true",
            help="with a resident process in each world",
        )

    def parse_known_args(  # type: ignore[override] # the namespace is always a new one
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and resolve the two."""
        found, rest = super().parse_known_args(args, namespace)
        found.bin_dir = found.bin_dir.resolve()
        if found.resident:
            if not (found.bin_dir / "flannel").exists():
                self.error(f"there is no flannel in {found.bin_dir}: ./build.sh builds it")
            found.bin_dir /= MODE
        return found, rest
