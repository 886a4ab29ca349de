"""The changes an ADD makes to the kernel, as values: describe, apply, undo.

Rules of this file: a step says what it would be in shell (``describe``), does it (``apply``),
and takes it back (``undo``), which works as well when ``apply`` was cut short or never ran.
``undo`` removes only what is proven this attachment's.  What is shared by the node's pods (the
bridge, its address, forwarding) is never undone.  Nothing here decides: that is ``plan``.
Imports: the protocol package.
"""

from __future__ import annotations

from cni import errors
from cni.errors import CNIError, Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cni_flannel.bridge.ends import Ends

REMEDY = "see the kernel log (dmesg); the same commands can be tried by hand"
VLAN_FILTERING = (
    "this kernel has no bridge VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING): "
    "use a kernel that has, or leave 'vlan' and 'vlanTrunk' out"
)


class Step:
    """One change.  ``remedy`` is what a person can do when the kernel refuses it.

    ``is_batch`` says that the commands it describes are its requests to the kernel, one by one.
    """

    __slots__ = ()
    remedy: str = REMEDY
    is_batch = False

    def describe(self) -> list[str]:
        """The equivalent commands, one per line."""
        raise NotImplementedError

    def require(self) -> None:
        """CNIError 101 if it can be seen beforehand that the kernel will refuse; for STATUS."""

    def apply(self, ends: Ends) -> None:
        """Make the change; OSError if the kernel refuses."""
        raise NotImplementedError

    def undo(self, ends: Ends) -> None:
        """Take the change back; nothing to do is fine."""


def run(
    steps: Iterable[Step],
    ends: Ends,
    tell: Callable[[str], None] | None = None,
    begun: list[Step] | None = None,
) -> None:
    """Apply every step in order; on any exception undo the begun ones, newest first.

    ``tell`` gets every command before it is carried out.  A refusal of the kernel becomes
    CNIError 101; an error of an undo is added to its details and hides nothing.  ``begun`` gets
    what has been done and not been undone.
    """
    begun = [] if begun is None else begun
    try:
        for step in steps:
            begun.append(step)
            if tell is not None:
                for command in step.describe():
                    tell(command)
            _apply(step, ends)
    except BaseException as error:
        problems = undo(begun, ends)
        begun.clear()
        if isinstance(error, CNIError):
            error.details = "\n".join([error.details, *problems])
        raise


def _apply(step: Step, ends: Ends) -> None:
    try:
        step.apply(ends)
    except OSError as error:
        msg = f"{_refused(step, error)}: {error}"
        raise CNIError(errors.KERNEL_REFUSED, msg, step.remedy) from error


def _refused(step: Step, error: OSError) -> str:
    """The command that was refused; all of the step's if it is not known which."""
    commands = step.describe()
    position = getattr(error, "position", -1)  # NetlinkError has it
    if step.is_batch and 0 <= position < len(commands):
        return commands[position]
    return "; ".join(commands)


def undo(steps: Sequence[Step], ends: Ends) -> list[str]:
    """Take steps back, newest first; what could not be taken back, a sentence each.

    A signal that comes meanwhile does not stop it: the step it cut short is taken back again.
    """
    left = list(steps)
    problems: list[str] = []
    while left:
        try:
            while left:
                problems += _undo_one(left[-1], ends)
                del left[-1]
        except Interrupted:  # comes once a call; the failure that is being handled says more
            continue
    return problems


def _undo_one(step: Step, ends: Ends) -> list[str]:
    try:
        step.undo(ends)
    except (OSError, CNIError) as error:
        return [f"could not roll back {'; '.join(step.describe())}: {error}"]
    return []
