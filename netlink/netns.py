"""Network namespaces: open one by path, enter it, come back.

Knows: setns(2), ioctl_nsfs(2) and /proc/thread-self/ns/net. Must not know: what is done inside.
A namespace belongs to a thread: nothing here touches the process's others. The one door to
``_ctypes``, for interpreters without os.setns (before 3.12). Imports errno, fcntl, os, cni.native.
"""

from __future__ import annotations

import errno
import fcntl
import os

from cni import files
from cni.native import signal
from cni.netns import CLONE_NEWNET, OWN, type_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_ATTEMPTS = 3  # to come back: a passing shortage of memory must not end the call
_HELD_BACK = (signal.SIGHUP, signal.SIGINT, signal.SIGALRM, signal.SIGTERM)
_SETNS: list[Callable[[int, int], None]] = []  # the way found at the first call


class NotANamespace(OSError):
    """The path exists and is no network namespace; the message says what it is."""


class WrongNamespace(BaseException):
    """The thread could not go back to its own namespace and must not go on.

    Not an Exception, so that no handler for ordinary failures carries on in a pod's network.
    """


def open(path: str) -> int:  # noqa: A001 read as netns.open
    """Open a network namespace; the caller closes the descriptor.

    FileNotFoundError when there is nothing at ``path``, NotANamespace when there is something
    else (a plain file is what a reboot leaves of a bind mount), OSError otherwise.
    """
    try:
        what = files.kind(os.stat(path).st_mode)  # a device must not even be opened
        # O_NONBLOCK: it may be exchanged for a named pipe now
        fd = -1 if what else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except NotADirectoryError as error:  # a path through a file
        raise NotANamespace(errno.EINVAL, str(error.strerror).lower(), path) from None
    if fd >= 0:
        try:
            kind = type_of(fd)
            if kind == CLONE_NEWNET:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        what = "another kind of namespace" if kind else "a plain file"
    raise NotANamespace(errno.EINVAL, f"not a network namespace but {what}", path)


def try_lock(fd: int) -> bool:
    """Take the exclusive flock(2) of a namespace's file; False if another process has it.

    The lock goes with the descriptor, so with the process at the latest.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_own(fd: int) -> bool:
    """Whether the calling thread is in this namespace already."""
    own, other = os.stat(OWN), os.fstat(fd)
    return (own.st_ino, own.st_dev) == (other.st_ino, other.st_dev)


class entered:  # noqa: N801 read as `with netns.entered(fd):`
    """Be in the namespace ``fd`` for the length of a block, this thread only.

    Signals whose handlers may raise wait until the thread is back: an exception between the
    block's end and the return would leave it in the wrong network. So keep blocks short, and
    start no process inside (it would inherit the mask and the namespace).
    """

    __slots__ = ("_fd", "_mask", "_own")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own = -1
        self._mask: set[int] = set()

    def __enter__(self) -> None:
        """Remember the own namespace and leave it. OSError: nothing has changed."""
        self._mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
            self._own = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
            setns(self._fd, CLONE_NEWNET)
        except BaseException:
            self._return()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Come back, whatever happened. WrongNamespace when that fails."""
        self._return()

    def _return(self) -> None:
        if self._own >= 0:
            for attempt in range(_ATTEMPTS):
                try:
                    setns(self._own, CLONE_NEWNET)
                    break
                except OSError as error:
                    if attempt == _ATTEMPTS - 1:
                        raise WrongNamespace(
                            f"cannot return to the own network namespace: {error}"
                        ) from error
            os.close(self._own)
            self._own = -1
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace ``fd`` of this kind. OSError."""
    if not _SETNS:
        _SETNS.append(getattr(os, "setns", None) or _setns_of_libc())
    _SETNS[0](fd, kind)


def _setns_of_libc() -> Callable[[int, int], None]:
    """Wrap the C library's setns: 0.3 ms to load, where the public ctypes costs 3 ms."""
    try:
        import _ctypes
    except ImportError:  # pragma: no cover - an interpreter without its private half
        return _setns_of_ctypes()

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 that is its name
        _type_ = "i"

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Int

    libc = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # None: this process
    function = Function(_ctypes.dlsym(libc, "setns"))

    def call(fd: int, kind: int) -> None:
        if function(fd, kind) != 0:
            number = _ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return call


def _setns_of_ctypes() -> Callable[[int, int], None]:
    import ctypes  # the public way, for an interpreter without the fast one

    libc = ctypes.CDLL(None, use_errno=True)

    def call(fd: int, kind: int) -> None:
        if libc.setns(fd, kind) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return call
