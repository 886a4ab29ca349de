"""The one door to the C modules under `socket` and `signal`.

The public modules build Enum classes when they are imported, which costs 4 to 6 ms in a process
that lives for 10. The C modules underneath have the same functions and constants as plain
integers. Where an interpreter lacks one, its public module takes the place.

Import contract: nothing else. Users write `from cni.native import socket`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket as socket
    import signal
else:
    try:
        import _socket as socket
    except ImportError:  # pragma: no cover - every CPython for Linux has it
        import socket
    try:
        import _signal as signal
    except ImportError:  # pragma: no cover
        import signal

__all__ = ["signal", "socket"]
