"""One call of a plugin from the environment and stdin to stdout and the exit status.

The only place that reads stdin and the environment, prints, or exits. Exactly one JSON document
goes to stdout. `call` is the same without the process around it, so that a resident process can
serve it. The order of the checks is that of the reference implementation (pkg/skel/skel.go),
except that the network namespace is compared with our own before anything is changed, and that
a verb which the plugin lacks is never a success.
"""

from __future__ import annotations

import os
import sys

from cni import callname, netns, validate, version
from cni.errors import (
    DECODING_FAILURE,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    CNIError,
    Interrupted,
    told,
)
from cni.native import signal
from cni.types import Args
from cni.wire import canonical, dumps, dumps_pretty, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from cni.types import Resident

_CONF_KEYS = (
    "cniVersion",
    "name",
    "type",
    "plugins",
    "prevResult",
    "runtimeConfig",
    "args",
    "dns",
    "ipam",
    "capabilities",
    "ipMasq",
    "cni.dev/valid-attachments",
)
_PER_ATTACHMENT = ("ADD", "DEL", "CHECK")
_VERBS = (*_PER_ATTACHMENT, "GC", "STATUS")


def run(plugin: Any, about: str) -> NoReturn:
    """Serve the call that this process was started for, then leave it.

    `plugin` has `cmd_add(args) -> result` and `cmd_del`, `cmd_check`, `cmd_gc`, `cmd_status`
    that return nothing; any of them may be missing. `about` is the line for a human who starts
    the program without CNI_COMMAND.
    """
    status, output = 1, b""
    environ: dict[str, str] = {}
    try:
        _catch_signals()
        environ = dict(os.environ)
        if environ.get("CNI_COMMAND"):
            status, output = _call(plugin, environ, _stdin_reader(environ), _note)
        else:
            from cni import probe  # a person, not a runtime

            status, output = probe.introduce(about, sys.argv[1:], _note)
        _ignore_signals()
    except BaseException as error:  # noqa: BLE001 - the last door: whatever it is, say it
        _ignore_signals()
        if status != 0 and not output:  # else the signal came when all was done
            output = failure(error, environ, _note)
    if not _write(1, output):
        status = 1
    os._exit(status)


def call(
    plugin: Any,
    environ: dict[str, str],
    stdin: bytes,
    note: Callable[[str], None],
    resident: Resident | None = None,
) -> tuple[int, bytes]:
    """Serve one call; return the exit status and what belongs on stdout.

    Touches nothing of the process: no stdin, no environment, no signal, no output.
    """
    return _call(plugin, environ, lambda: stdin, note, resident)


def failure(
    error: BaseException, environ: dict[str, str], note: Callable[[str], None], asked: str = ""
) -> bytes:
    """Tell any exception as what belongs on stdout: the error object."""
    debug = note if environ.get("CNI_FLANNEL_DEBUG") == "1" else None
    return dumps_pretty(told(error, debug).to_json(asked)).encode()


def _call(
    plugin: Any,
    environ: dict[str, str],
    read_stdin: Callable[[], bytes],
    note: Callable[[str], None],
    resident: Resident | None = None,
) -> tuple[int, bytes]:
    conf: dict[str, Any] = {}
    try:
        command = validate.environment(environ)
        if command == "VERSION":
            from cni import probe  # no pod waits for VERSION

            return 0, probe.answer(read_stdin())
        if command == "ADD":
            callname.ensure(environ)
        conf.update(_parse_conf(read_stdin()))
        return 0, _dispatch(plugin, _args(command, conf, environ, note, resident))
    except (Exception, Interrupted) as error:  # noqa: BLE001 - every failure becomes its JSON
        named = conf.get("cniVersion")
        return 1, failure(error, environ, note, named if isinstance(named, str) else "")


def _parse_conf(stdin: bytes) -> dict[str, Any]:
    what = "error unmarshall network config: "
    try:
        conf = loads(stdin)
    except ValueError as error:
        raise CNIError(
            DECODING_FAILURE, f"{what}{error}", "stdin must hold one network configuration in JSON"
        ) from None
    if not isinstance(conf, dict):
        raise CNIError(
            DECODING_FAILURE,
            f"{what}the configuration must be a JSON object, not {dumps(conf)[:60]}",
            "stdin must hold one network configuration, not a list of them",
        )
    return canonical(conf, _CONF_KEYS)


def _args(
    command: str,
    conf: dict[str, Any],
    environ: dict[str, str],
    note: Callable[[str], None],
    resident: Resident | None,
) -> Args:
    return Args(
        command=command,
        container_id=environ.get("CNI_CONTAINERID", ""),
        netns=environ.get("CNI_NETNS", ""),
        ifname=environ.get("CNI_IFNAME", ""),
        cni_args=environ.get("CNI_ARGS", ""),
        path=environ.get("CNI_PATH", ""),
        conf=conf,
        environ=environ,
        note=note,
        resident=resident,
        wanted=() if resident is None else (resident.confirm_caller,),
    )


def _dispatch(plugin: Any, args: Args) -> bytes:
    """Make the checks that need the conf, run the verb, return what belongs on stdout."""
    command = args.command
    validate.network_name(args.conf)
    if command not in _VERBS:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f"unknown CNI_COMMAND: {command}",
            f"it is one of {', '.join(_VERBS)}, VERSION, in capitals",
        )
    if command in ("ADD", "CHECK", "STATUS"):  # what is gone already, DEL takes away with any conf
        validate.one_plugin(args.conf)
    if command != "DEL" or isinstance(args.conf.get("cniVersion", ""), str):
        version.check(command, version.of_conf(args.conf))
    verb = getattr(plugin, f"cmd_{command.lower()}", None)
    if verb is None:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f"unknown CNI_COMMAND: {command}",
            "this plugin does not implement it",
        )
    makes_links = getattr(plugin, "NEEDS_NETNS", True)
    if command in _PER_ATTACHMENT:
        netns.check(args, needed=makes_links)
    if command != "ADD":
        verb(args)
        return b""
    earlier = version.prev_result(args.conf) if makes_links else None
    return _result_document(plugin, args, verb(args), earlier)


def _result_document(
    plugin: Any, args: Args, result: dict[str, Any], earlier: dict[str, Any] | None
) -> bytes:
    """Put the result into the words of the caller; one that cannot be told is undone again."""
    try:
        if earlier is not None:
            from cni import chain  # hardly anybody is not the first of the chain

            result = chain.appended(result, earlier)
        return dumps_pretty(version.convert(result, version.of_conf(args.conf))).encode()
    except BaseException:
        try:
            plugin.cmd_del(args.replaced(command="DEL"))
        except Exception as error:  # noqa: BLE001 - the first failure is the one to report
            args.note(f"clean up after an ADD whose result cannot be written: {error}")
        raise


# ------------------------------------------------------------------------------ the process's edge


def _catch_signals() -> None:
    """Make SIGTERM and SIGINT raise Interrupted, once; later ones must not stop the roll-back."""
    raised = False

    def interrupt(signum: int, _frame: object) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise Interrupted(signum)

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def _ignore_signals() -> None:
    """Let nothing cut the answer in two."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stdin_reader(environ: dict[str, str]) -> Callable[[], bytes]:
    if environ["CNI_COMMAND"] != "VERSION":
        return _read_stdin
    from cni import probe  # no pod waits for VERSION

    return probe.glance


def _read_stdin() -> bytes:
    chunks: list[bytes] = []
    try:
        while chunk := os.read(0, 1 << 16):
            chunks.append(chunk)
    except OSError as error:
        msg = f"error reading from stdin: {error.strerror}"
        raise CNIError(IO_FAILURE, msg, "the caller must open stdin and write the conf") from error
    return b"".join(chunks)


def _note(text: str) -> None:
    _write(2, f"{text}\n".encode("utf-8", "backslashreplace"))


def _write(fd: int, data: bytes) -> bool:
    """Write everything, however many writes it takes; False when nobody reads any more."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        if fd == 1:
            _note(f"error writing to stdout: {error.strerror}")
        return False
    return True
