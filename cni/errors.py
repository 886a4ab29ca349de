"""Errors as the CNI spec's error object (spec section 5, "Error"), and the table of codes.

Knows nothing of verbs, the environment or where an error is printed. Imports nothing.
Codes below 100 are the spec's; 8 is used by the reference implementation only; from 100 they
are this project's own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3  # never used: it tells the runtime that nothing needs cleaning up
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_NETWORK_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN_LATER = 11
PLUGIN_NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
INTERNAL = 100
KERNEL_REFUSED = 101
POOL_EXHAUSTED = 102
ADDRESS_TAKEN = 103
BRIDGE_IN_THE_WAY = 104
DELEGATE_FAILED = 105
ATTACHMENT_DIFFERS = 106

# containerd takes a DEL's error with one of these phrases for "the network is gone already".
PHRASES_OF_SUCCESS = (
    ("not found", "missing"),
    ("no such file or directory", "a path is missing (ENOENT)"),
)


class CNIError(Exception):
    """What the runtime will read.

    `msg` is lower case: what was attempted, with which value, then the cause. `details` is the
    remedy, or empty.
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg

    def to_json(self, version: str = "") -> dict[str, Any]:
        """Return the error object; `version` is the conf's cniVersion, left out while unknown."""
        document: dict[str, Any] = {"cniVersion": version} if version else {}
        document["code"] = self.code
        document["msg"] = self.msg
        if self.details:
            document["details"] = self.details
        return document


class AlreadyAttached(CNIError):
    """ADD of an attachment that exists and is complete: it must stay as it is."""


class Interrupted(BaseException):
    """A signal asked this call to stop: roll back, then leave.

    Not an Exception, so that no `except Exception` on the way mistakes it for a failed step.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def harmless(text: str) -> str:
    """Say a system's or a program's words so that no runtime takes them for success."""
    for phrase, other in PHRASES_OF_SUCCESS:
        start = text.lower().find(phrase)
        while start >= 0:
            text = text[:start] + other + text[start + len(phrase) :]
            start = text.lower().find(phrase)
    return text


def combine(what: str, errors: Sequence[CNIError]) -> CNIError:
    """Make one error of those a clean-up met on its way; `what` is what was being done.

    A single error comes back as it is. Of several, the first gives the code, and every message
    and detail is kept.
    """
    if len(errors) == 1:
        return errors[0]
    if not errors:
        return CNIError(INTERNAL, f"{what}: no error was given")
    messages = "; ".join(error.msg for error in errors)
    details = "\n".join(error.details for error in errors if error.details)
    return CNIError(errors[0].code, f"{what}: {messages}", details)


def told(error: BaseException, trace: Callable[[str], None] | None = None) -> CNIError:
    """Give any exception a code; one that nobody expected is a bug of ours and says where.

    ``trace`` gets the whole traceback of such a one, if somebody wants to read it.
    """
    if isinstance(error, CNIError):
        return error
    if isinstance(error, Interrupted):
        return CNIError(
            TRY_AGAIN_LATER,
            f"interrupted by signal {error.signum}",
            "what was begun has been rolled back; the runtime may have run out of patience",
        )
    if trace is not None:
        import traceback  # 8 ms, for a failed call of somebody who debugs

        trace("".join(traceback.format_exception(error)).rstrip("\n"))
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "unknown place"
    text = harmless(str(error))
    if isinstance(error, ImportError):  # the rare paths load their parts when they need them
        return CNIError(
            IO_FAILURE,
            f"load a part of the plugin: {text}",
            "its folder is incomplete or unreadable: if a retry does not help, install it again",
        )
    return CNIError(
        INTERNAL,
        f"unexpected {type(error).__name__}: {text}",
        f"at {place}; this is a bug: please report it with the conf "
        "(CNI_FLANNEL_DEBUG=1 in the environment shows the whole traceback on stderr)",
    )
