"""What the commands' lines have in common."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from flanneld.commands.words import Parser
from flanneld.config import ConfigError
from flanneld.diagnosis.node import view
from flanneld.options import FLAGS
from flanneld.plain import plain
from flanneld.state import StateError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from flanneld.diagnosis.node import View

FAILED = 2
"""Exit status of a command that could not look: neither yes nor no."""


def default_of(flag: str) -> str:
    """Give the daemon's value of a flag when its command line has none."""
    variable = f"FLANNELD_{flag.upper().replace('-', '_')}"
    return os.environ.get(variable) or next(str(one.default) for one in FLAGS if one.name == flag)


def parser(name: str, about: str, statuses: str) -> argparse.ArgumentParser:
    """Begin the description of a command's line."""
    made = Parser(
        prog=f"flanneld {name}",
        description=about,
        epilog=f"Exit status: {statuses}.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--subnet-file",
        "-subnet-file",
        default=default_of("subnet-file"),
        metavar="PATH",
        help="of the daemon that is asked about (%(default)s)",
    )
    return made


def add_json(made: argparse.ArgumentParser) -> None:
    """Let the command print for programs."""
    made.add_argument("--json", action="store_true", help="print one JSON document")


def show(lines: Iterable[str]) -> None:
    """Print to stdout; what others wrote commands no terminal."""
    sys.stdout.writelines(f"{plain(line)}\n" for line in lines)


async def look(name: str, subnet_file: str) -> View | None:
    """Look at this node; None if that cannot be, once it is said why."""
    try:
        return await view(subnet_file)
    except (StateError, ConfigError, OSError) as error:
        fail(name, error)
        return None


def fail(name: str, error: Exception) -> int:
    """Print to stderr why the command could not look."""
    sys.stderr.write(f"flanneld {name}: {plain(str(error))}\n")
    return FAILED
