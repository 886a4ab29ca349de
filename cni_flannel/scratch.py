"""The state file of an attachment: the delegate's configuration, kept from ADD to DEL.

``<dataDir>/<containerID>`` for eth0, ``<dataDir>/<containerID>:<ifname>`` for any other
interface; compact JSON, mode 0600, as the Go plugin writes and reads it (it knows the first form
only).  A file is a cache: DEL can do without it.  It is written by temp and rename, so it is
whole or absent; a file of 0 bytes (the Go plugin after a power loss) counts as absent.
Imports: os, the protocol package.
"""

from __future__ import annotations

import os

from cni import errors, files, wire
from cni.errors import CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIRST_IFNAME = "eth0"
_LARGEST = 1 << 26


class Scratch:
    """The state file of one attachment under ``data_dir``."""

    __slots__ = (
        "_container_id",
        "_data_dir",
        "_is_ours",
        "_known",
        "_network",
        "_own",
        "_temp",
        "_text",
        "_unknown",
    )

    def __init__(self, data_dir: str, network: str, container_id: str, ifname: str) -> None:
        name = container_id if ifname == FIRST_IFNAME else f"{container_id}:{ifname}"
        self._network = network
        self._data_dir = data_dir
        self._container_id = container_id
        self._own = f"{data_dir}/{name}"
        # One fixed name: whoever writes or removes this state also cleans up after a SIGKILL.
        self._temp = f"{data_dir}/.{name}.tmp"
        self._known: tuple[int, int] | None = None
        self._unknown: CNIError | None = None  # why it is not known which file was there at first
        try:
            self._known = _identity(self._own)
        except CNIError as error:
            self._unknown = error
        self._is_ours = False
        self._text = b""

    def save(self, conf: dict[str, Any]) -> None:
        """Write ``conf``; CNIError 5 names the file and the system's reason.

        One that says the same is left as it is: it may be of another ADD, which is at work or has
        attached the container, and stays that one's.  CNIError 7 if ``conf`` is nested more deeply
        than JSON can be written.
        """
        try:
            self._text = wire.dumps(conf).encode()
        except ValueError as error:
            raise CNIError(
                errors.INVALID_NETWORK_CONFIG, f"store configuration: {error}"
            ) from error
        self._is_ours = False
        if read(self._own) != conf:
            self._save()

    def _save(self) -> None:
        try:
            files.make_folder(self._data_dir, 0o700)
            _write(self._temp, self._text)
            known = _identity(self._temp)
            os.rename(self._temp, self._own)
            self._known, self._unknown, self._is_ours = known, None, True
        except OSError as error:
            _unlink(self._temp)
            raise _failure("write", self._own, error) from error

    def own(self) -> dict[str, Any] | None:
        """The configuration in this attachment's own file; None if it is none of this network."""
        return self._usable(self._own)

    def load(self) -> dict[str, Any] | None:
        """The stored configuration, or None if there is none of this network that can be used.

        The Go plugin names every file by the container alone, so for a further interface its
        file is the second place to look.
        """
        return self.own() or self._usable(f"{self._data_dir}/{self._container_id}")

    def _usable(self, path: str) -> dict[str, Any] | None:
        conf = read(path)
        return conf if conf is not None and conf.get("name") == self._network else None

    def remove(self) -> None:
        """Remove the file; absent is fine.

        It stays if it belongs to another network, or is not the one that was there at first, or
        that this call saved: then another call has written it.  CNIError 5 when that is not known.
        """
        if self._unknown is not None:
            raise self._unknown
        if _identity(self._own) == self._known:
            conf = read(self._own)
            if conf is None or conf.get("name", self._network) == self._network:
                _remove(self._own)
        _remove(self._temp)

    def take_back(self, before: dict[str, Any] | None) -> None:
        """After a failed ADD: what this call saved becomes what was there before."""
        if not self._is_ours or _identity(self._own) != self._known:
            return
        if before is None:
            self.remove()
        else:
            self.save(before)

    def confirm(self) -> None:
        """Make the file this call's own, at the end of ADD: whoever else has written it has failed.

        CNIError 11 if there is none any more: then a DEL has removed what was saved.
        """
        if _identity(self._own) is None:
            raise CNIError(
                errors.TRY_AGAIN_LATER,
                f"attach {self._container_id} to {self._network}: its state file {self._own} was "
                "removed meanwhile",
                "a DEL of the same attachment came before this ADD had ended; what was begun has "
                "been rolled back",
            )
        if not self._is_ours:
            self._save()


def read(path: str) -> dict[str, Any] | None:
    """The delegate's configuration in the file at ``path``; None if absent, empty or broken."""
    try:
        conf = wire.loads(files.read(path, _LARGEST))
    except (FileNotFoundError, NotADirectoryError, files.NotPlain, ValueError):
        return None
    except OSError as error:
        raise _failure("read", path, error) from error
    return conf if _is_usable(conf) else None


def _is_usable(conf: Any) -> bool:
    """Whether it names the delegate to hand a DEL to, and where its addresses come from."""
    if type(conf) is not dict or not conf.get("type"):
        return False
    ipam = conf.get("ipam", {})
    texts = [conf["type"], conf.get("name", "")]
    texts += [ipam.get("type", ""), ipam.get("dataDir", "")] if type(ipam) is dict else [ipam]
    return all(type(text) is str and "\0" not in text for text in texts)


def listed(data_dir: str, problems: list[CNIError]) -> list[tuple[str, str, dict[str, Any]]]:
    """Every usable state file as (container ID, ifname, delegate's configuration).

    The Go plugin's file of a further interface looks like the one of eth0.  ``problems`` gets
    an error for each file that cannot be read.
    """
    try:
        names = os.listdir(data_dir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _failure("list", data_dir, error) from error
    found = []
    for name in names:
        try:
            conf = None if name.startswith(".") else read(f"{data_dir}/{name}")
        except CNIError as error:
            problems.append(error)
            continue
        if conf is not None:
            container_id, _, ifname = name.partition(":")
            found.append((container_id, ifname or FIRST_IFNAME, conf))
    return found


def _identity(path: str) -> tuple[int, int] | None:
    """By which a file is known again; None if there is none. CNIError if that is not known."""
    try:
        found = os.lstat(path)
    except ValueError:
        return None
    except OSError as error:
        if error.errno in files.NOT_THERE:
            return None
        raise _failure("look at", path, error) from error
    return found.st_ino, found.st_mtime_ns


def _write(path: str, data: bytes) -> None:
    # O_NONBLOCK: a named pipe in the file's place must not hold the call up.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _failure("remove", path, error) from error


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        # The error that matters, why the write failed, is already on its way.
        return


def require_room(data_dir: str) -> None:
    """CNIError 5 if no state can be written there; for STATUS."""
    try:
        files.require_room(data_dir)
    except OSError as error:
        raise _failure("write", f"{data_dir}/*", error) from error


def _failure(verb: str, path: str, error: OSError) -> CNIError:
    if verb == "write":
        remedy = f"make {os.path.dirname(path)} a writable directory with free space, then retry"
    else:
        remedy = f"remove {path} if it is no plain file, look at its file system, then retry"
    return CNIError(
        errors.IO_FAILURE,
        f"{verb} state file {path}: [Errno {error.errno}] {error.strerror}",
        remedy,
    )
