"""How a command of this project's own ends: by a line and the right exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from conformance.progress import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def run_command(name: str, main: Callable[[], int], interrupted: str = "interrupted") -> NoReturn:
    """Run it, and leave with its status: 130 after Ctrl-C, 141 if nobody reads what it prints.

    While it runs, and nobody watches, `name` comes with a line a minute.
    """
    _wake_at_ctrl_c()
    try:
        with told(name):
            status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr, flush=True)
        os._exit(128 + signal.SIGINT)  # without waiting for threads
    except BrokenPipeError:  # the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is flushed at the end
        status = 128 + signal.SIGPIPE
    sys.exit(status)


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads to work in; Ctrl-C does not wait for the end of their work."""
    pool = ThreadPoolExecutor(count)
    patient = True
    try:
        yield pool
    except KeyboardInterrupt:
        patient = False
        raise
    finally:
        pool.shutdown(wait=patient, cancel_futures=not patient)


def _wake_at_ctrl_c() -> None:
    """Let Ctrl-C end a wait of the main thread, whichever thread the kernel gives the signal to."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.signal(signal.SIGURG, lambda *_: None)
    signal.set_wakeup_fd(tell)

    def wake() -> None:
        while os.read(told, 1) != bytes([signal.SIGINT]):
            continue
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)

    threading.Thread(target=wake, daemon=True).start()
