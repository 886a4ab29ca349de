"""Delegation: run another plugin as the runtime would run it (spec section 4).

The delegate gets our whole environment with its own CNI_COMMAND, and `args.conf` on stdin. Its
error object passes through with code, message and details; anything else that goes wrong with
it is code 105. Its stderr goes to `args.note`.
"""

from __future__ import annotations

import os
import stat

from cni import callname, process, version
from cni.errors import DELEGATE_FAILED, INVALID_NETWORK_CONFIG, TRY_AGAIN_LATER, CNIError
from cni.wire import canonical, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.types import Args

_SHOWN = 400  # characters of a delegate's output in a message
_NAME = "the type in the conf is the name of a file in one of the directories of CNI_PATH"
_LOOK = "look into what the delegate wrote; run it by hand with the same conf on its stdin"


def find(plugin: str, path: str) -> str:
    """Return the first regular file of that name in the directories of CNI_PATH."""
    if not plugin:
        raise CNIError(INVALID_NETWORK_CONFIG, "no plugin name provided", _NAME)
    if "/" in plugin or plugin in (".", ".."):
        raise CNIError(INVALID_NETWORK_CONFIG, f"invalid plugin name: {plugin}", _NAME)
    directories = [directory for directory in path.split(":") if directory]
    for directory in directories:
        candidate = f"{directory}/{plugin}"
        try:
            if stat.S_ISREG(os.stat(candidate).st_mode):
                return candidate
        except (OSError, ValueError):
            continue
    remedy = f"install {plugin} into one of these directories, or correct the type in the conf"
    raise CNIError(
        DELEGATE_FAILED,
        f"failed to find plugin {dumps(plugin)} in path [{' '.join(directories)}]",
        remedy if directories else "CNI_PATH has to name the directories of the node's plugins",
    )


def add(plugin: str, args: Args) -> dict[str, Any]:
    """Run the delegate's ADD and return its result in the internal shape.

    If that fails in any way, or is not wanted any more, its DEL is run before the error goes on: a
    delegate may have done half of its work, or all of it and then printed something unreadable.
    """
    executable = find(plugin, args.path)
    try:
        result = _result(plugin, _run("ADD", plugin, executable, args), args)
        args.confirm()
        return result
    except BaseException:
        try:
            _run("DEL", plugin, executable, args)
        except CNIError as error:
            args.note(f"clean up after a failed ADD of plugin {dumps(plugin)}: {error}")
        raise


def delete(plugin: str, args: Args) -> None:
    """Run the delegate's DEL."""
    _run("DEL", plugin, find(plugin, args.path), args)


def check(plugin: str, args: Args) -> None:
    """Run the delegate's CHECK."""
    _run("CHECK", plugin, find(plugin, args.path), args)


def gc(plugin: str, args: Args) -> None:
    """Run the delegate's GC."""
    _run("GC", plugin, find(plugin, args.path), args)


def status(plugin: str, args: Args) -> None:
    """Run the delegate's STATUS."""
    _run("STATUS", plugin, find(plugin, args.path), args)


class Foreign:
    """An executable with the same five verbs as a plugin of ours."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def cmd_add(self, args: Args) -> dict[str, Any]:
        """Run its ADD, and its DEL if that fails."""
        return add(self.kind, args)

    def cmd_del(self, args: Args) -> None:
        """Run its DEL."""
        delete(self.kind, args)

    def cmd_check(self, args: Args) -> None:
        """Run its CHECK."""
        check(self.kind, args)

    def cmd_gc(self, args: Args) -> None:
        """Run its GC."""
        gc(self.kind, args)

    def cmd_status(self, args: Args) -> None:
        """Run its STATUS."""
        status(self.kind, args)


def _run(command: str, plugin: str, executable: str, args: Args) -> bytes:
    """Run one verb of a delegate; return its stdout, or raise its error."""
    if args.resident is not None:
        args.resident.step_aside()
    try:
        done = process.run(
            [executable],
            stdin=dumps(args.conf).encode(),
            env=_environment(command, args),
            timeout_s=None if args.resident is None else args.resident.limit_s,
            # what takes back an ADD is not given up because the caller has given up
            connection=args.resident.connection if args.resident and command == "ADD" else -1,
        )
    except TimeoutError as error:
        raise CNIError(
            TRY_AGAIN_LATER,
            f"run plugin {dumps(plugin)} {command}: {error}",
            "what was begun has been rolled back; see why the delegate takes so long",
        ) from error
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)  # found just now: its interpreter is not there
        cause = "its interpreter is missing" if gone else os.strerror(error.errno or 0)
        raise CNIError(
            DELEGATE_FAILED,
            f"run plugin {dumps(plugin)} ({executable}): {cause}",
            "the file must be an executable for this machine",
        ) from error
    said = done.stderr.decode("utf-8", "replace").rstrip("\n")
    if said:
        args.note(said)
    if done.status != 0:
        raise _failure(plugin, command, done)
    return done.stdout


def _environment(command: str, args: Args) -> dict[str, str]:
    """Return our environment with the call's own variables as `args` has them."""
    own = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": args.container_id,
        "CNI_NETNS": args.netns,
        "CNI_IFNAME": args.ifname,
        "CNI_ARGS": args.cni_args,
        "CNI_PATH": args.path,
    }
    other = {*own, callname.VARIABLE}  # what a delegate does is not this call's own work
    inherited = {key: value for key, value in args.environ.items() if key not in other}
    return {**inherited, **{key: value for key, value in own.items() if value}}


def _failure(plugin: str, command: str, done: process.Completed) -> CNIError:
    """Make an error of what a failed delegate left: its own error object, if it printed one."""
    ending = f"signal: {-done.status}" if done.status < 0 else f"exit status {done.status}"
    who = f"plugin {dumps(plugin)} {command}"
    if not done.stdout.strip():
        if not done.stderr.strip():
            cause = f"netplugin failed with no error message: {ending}"
        else:
            cause = f"netplugin failed: {_shown(done.stderr)}: {ending}"
        return CNIError(DELEGATE_FAILED, f"{who}: {cause}", _LOOK)
    try:
        found = loads(done.stdout)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - one cause among others
    except ValueError as error:
        cause = f"netplugin failed but error parsing its diagnostic message {_shown(done.stdout)}"
        return CNIError(DELEGATE_FAILED, f"{who}: {cause}: {error} ({ending})", _LOOK)
    fields = canonical(found, ("code", "msg", "details"))
    code, msg, details = fields.get("code"), fields.get("msg"), fields.get("details", "")
    if isinstance(code, bool) or not isinstance(code, int) or not isinstance(msg, str):
        cause = f"netplugin failed and printed no error object: {_shown(done.stdout)}"
        return CNIError(DELEGATE_FAILED, f"{who}: {cause} ({ending})", _LOOK)
    return CNIError(code, msg, details if isinstance(details, str) else dumps(details))


def _result(plugin: str, stdout: bytes, args: Args) -> dict[str, Any]:
    """Read what a successful ADD printed; without a version of its own it has the conf's."""
    try:
        found = loads(stdout)
    except ValueError as error:
        raise CNIError(
            DELEGATE_FAILED,
            f"plugin {dumps(plugin)} ADD: failed to unmarshal raw result: {error}: "
            f"{_shown(stdout)}",
            _LOOK,
        ) from None
    found = {} if found is None else found
    named = found.get("cniVersion") if isinstance(found, dict) else None
    try:
        return version.decode(
            found, named if named and isinstance(named, str) else version.of_conf(args.conf)
        )
    except CNIError as error:
        raise CNIError(
            DELEGATE_FAILED, f"plugin {dumps(plugin)} ADD: {error.msg}: {_shown(stdout)}", _LOOK
        ) from None


def _shown(output: bytes) -> str:
    """Quote a delegate's output, shortened."""
    text = output.decode("utf-8", "replace").strip()
    return dumps(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)")
