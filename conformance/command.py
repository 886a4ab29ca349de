"""How a command of this project's own ends: by a line and the right exit status."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from conformance.progress import told

if TYPE_CHECKING:
    from collections.abc import Callable


def run_command(name: str, main: Callable[[], int], interrupted: str = "interrupted") -> NoReturn:
    """Run it, and leave with its status: 130 after Ctrl-C, 141 if nobody reads what it prints.

    While it runs, and nobody watches, `name` comes with a line a minute.
    """
    try:
        with told(name):
            status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        status = 128 + signal.SIGINT
    except BrokenPipeError:  # the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is flushed at the end
        status = 128 + signal.SIGPIPE
    sys.exit(status)
