"""``flanneld``: the daemon, and the commands of the same program.

The exit status is 0 after a signal; 1 when the daemon cannot do its work, or has lost its lease; 2
when the command line, the environment or the network's configuration is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from flanneld import logs, options, privileges
from flanneld.config import ConfigError
from flanneld.flags import UsageError, mistyped, usage
from flanneld.program import build, hold_build, own_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flanneld.options import Options

_log = logging.getLogger("flanneld")

COMMANDS = {
    "status": "show this node, its lease, and how each peer is reached",
    "diff": "compare the kernel with what is desired; exit 1 if they differ",
    "explain": "explain A B: why pod address A does not reach pod address B",
    "cleanup": "remove every trace of the daemon from this node",
    "install": "put the plugins or the daemon on a node, or take them away",
}
_INNER = ("forward",)  # parts of the daemon's own work
_HELP = ("-h", "--h", "-help", "--help")


def main(argv: Sequence[str]) -> int:
    """Run the daemon or a command, and see that what it printed was taken; the exit status."""
    _open_streams()
    privileges.mask()
    hold_build()
    try:
        status = _main(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has had enough
        status = 128 + signal.SIGPIPE
    except OSError as error:
        sys.stderr.write(f"flanneld: {error}\n")
        status = 1
    except ModuleNotFoundError as error:
        sys.stderr.write(f"flanneld: {error}: ./build.sh makes a .venv that has the packages\n")
        return 2
    else:
        return status
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is flushed at the end
    return status


def _open_streams() -> None:
    """Nothing that is opened later may get the number of a stream that the caller has closed."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _main(argv: Sequence[str]) -> int:
    if argv and (argv[0] in COMMANDS or argv[0] in _INNER):
        command = import_module(f"flanneld.commands.{argv[0]}")
        status: int = asyncio.run(command.run(list(argv[1:])))
        return status
    if any(word in _HELP for word in argv):
        sys.stdout.write(_usage())
        return 0
    try:
        if argv and argv[0][:1] != "-":
            raise UsageError(_no_command(argv[0]))
        return _daemon(argv)
    except (UsageError, ConfigError) as error:
        sys.stderr.write(f"flanneld: {error}\nflanneld --help lists all flags\n")
        return 2


def _no_command(word: str) -> str:
    near = get_close_matches(word.lower(), COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    return f"no command is called {word!r}: {hint}"


def _daemon(argv: Sequence[str]) -> int:
    if any(word.lstrip("-") in ("version", "version=true") for word in argv if word[:1] == "-"):
        sys.stdout.write(f"{build()}\n")
        return 0
    wanted = options.read(argv, os.environ)
    privileges.hide("FLANNELD_ETCD_PASSWORD")
    logs.set_up(logging.DEBUG if wanted.v > 0 else logging.INFO)
    for sentence in mistyped(options.FLAGS, os.environ):
        _log.warning("%s", sentence)
    if wanted.cleanup:
        from flanneld.commands import cleanup

        places = ("--subnet-file", wanted.subnet_file, "--data-dir", wanted.data_dir)
        return asyncio.run(cleanup.run([*places]))
    return asyncio.run(_run(wanted))


async def _run(wanted: Options) -> int:
    """Run the daemon until it ends by itself, or by SIGTERM or SIGINT; a second one kills."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines say nothing to a person
    from flanneld.daemon import Daemon
    from flanneld.notify import notify
    from flanneld.subnet.stores import store

    loop = asyncio.get_running_loop()
    manager = store(wanted)

    async def serve() -> None:
        await Daemon(wanted, manager).run()

    work = asyncio.create_task(serve())

    def stop(number: signal.Signals) -> None:
        _log.info("stopping; the data plane stays", extra={"signal": number.name})
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(one)
        notify("STOPPING=1")
        work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    _log.info("flanneld starts", extra={"version": own_version(), "store": wanted.subnet_mgr})
    try:
        return await _outcome(work)
    finally:
        await manager.close()


async def _outcome(work: asyncio.Task[None]) -> int:
    try:
        await work
    except asyncio.CancelledError:
        return 0
    except BaseExceptionGroup as group:
        for error in _flat(group):
            _report(error)
        return 1
    except (UsageError, ConfigError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever ends the daemon is told, and ends it
        _report(error)
        return 1
    return 0


def _flat(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error


def _report(error: BaseException) -> None:
    """Log why the daemon ends; one that nobody foresaw with its trace."""
    from flanneld.external import ExternalError
    from flanneld.files import Locked
    from flanneld.subnet.manager import Exhausted, Revoked

    foreseen = isinstance(
        error, Revoked | Exhausted | ExternalError | Locked | OSError | ValueError
    )
    if foreseen:
        lost = "lease lost: " if isinstance(error, Revoked) else ""
        _log.error("ending: %s%s", lost, error)
    else:
        _log.error("ending by a mistake in this program: please report it", exc_info=error)


def _usage() -> str:
    commands = "".join(f"  {name:<10}{text}\n" for name, text in COMMANDS.items())
    return (
        "usage: flanneld [FLAG...]\n       flanneld COMMAND [ARGUMENT...]\n\n"
        f"commands:\n{commands}\nflags (each also as FLANNELD_NAME in the environment):\n"
        f"{usage(options.FLAGS)}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
