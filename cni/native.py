"""The one door to the C modules under `socket` and `signal`.

The public modules build Enum classes when they are imported, which costs 4 to 6 ms in a process
that lives for 10. The C modules underneath have the same functions and constants as plain
integers. Where an interpreter lacks one, its public module takes the place.

`Held` is here because whoever starts a process needs it, and signals come through this door.
Import contract: nothing else. Users write `from cni.native import socket`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket as socket
    import signal
    from typing import Self
else:
    try:
        import _socket as socket
    except ImportError:  # pragma: no cover - every CPython for Linux has it
        import socket
    try:
        import _signal as signal
    except ImportError:  # pragma: no cover
        import signal

__all__ = ["Held", "signal", "socket"]

_INTERRUPTING = (signal.SIGTERM, signal.SIGINT)  # what cni/skel.py turns into an exception


class Held:
    """A block in which no signal handler runs, so that none raises between two of its steps."""

    __slots__ = ("mask",)

    def __enter__(self) -> Self:
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTING)
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
