"""Steps on the claim to an attachment: its addresses, and that nobody took it back meanwhile.

Calls for one attachment may overtake each other: a DEL comes while its ADD is at work, because a
runtime lost patience.  DEL releases the lease and then looks for the link; ADD makes the link and
then looks at the lease.  So one of them sees the other, whoever is faster.
Imports: ``ipam``, the protocol package, ``steps``.
"""

from __future__ import annotations

from cni import errors
from cni.errors import CNIError, Interrupted
from cni_flannel.bridge.conf import HOST_LOCAL
from cni_flannel.bridge.steps import Step
from ipam import claim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cni.attachment import Attachment
    from cni.cidr import Address
    from cni.types import Args, Plugin
    from cni_flannel.bridge.ends import Ends

_HURRY_S = 0.5


class Lease(Step):
    """Get addresses from the IPAM plugin: ``result`` is what it gave, None without one."""

    __slots__ = ("_args", "_attachment", "_ipam", "_is_local", "_may_hold", "result")

    def __init__(self, args: Args, attachment: Attachment, ipam: Plugin | None, kind: str) -> None:
        self._args = args.replaced(wanted=())  # that is asked when all is done
        self._attachment = attachment
        self._ipam = ipam
        self._is_local = kind == HOST_LOCAL
        self._may_hold = False
        self.result: Mapping[str, Any] | None = None

    def describe(self) -> list[str]:
        return []

    def apply(self, ends: Ends) -> None:
        if self._ipam is None:
            return
        self._may_hold = True
        try:
            self.result = self._ipam.cmd_add(self._args)
        except CNIError as error:
            self._may_hold = False  # a plugin that fails has taken its leases back
            is_duplicate = self._is_local and error.code == errors.ADDRESS_TAKEN
            if not is_duplicate or not self.forget_killed(ends):
                raise
            self._may_hold = True
            self.result = self._ipam.cmd_add(self._args)
        except Interrupted:
            self._hurry()
            raise

    def forget_killed(self, ends: Ends) -> bool:
        """Take back the lease and the rules that a killed ADD left; whether there was a lease.

        The attachment has no link, and no other ADD is at work in the pod's namespace.
        """
        from cni_flannel.bridge import removal  # hardly any ADD follows a killed one

        had_lease = False
        try:
            if self._is_local:
                had_lease = claim.forget_killed(self._args)
            elif self._ipam is not None:
                self._ipam.cmd_del(self._args)
        except CNIError as error:
            self._args.note(f"a killed ADD's lease of {self._attachment.alias()} stays: {error}")
        removal.remove_rules(self._args, ends, self._attachment, [])
        return had_lease

    def undo(self, ends: Ends) -> None:
        del ends
        if self._ipam is None or not self._may_hold:
            return
        if self._is_local:
            claim.take_back(self._args)
        else:
            self._ipam.cmd_del(self._args)

    def _hurry(self) -> None:
        """Wait no more for the leases' lock: we did, and nobody waits for an answer now."""
        if self._is_local:
            ipam = {**self._args.conf["ipam"], "lockTimeout": _HURRY_S}
            self._args = self._args.replaced(conf={**self._args.conf, "ipam": ipam})


class Confirm(Step):
    """Changes nothing; CNIError 11 if the attachment must be taken back: it is the last step."""

    __slots__ = ("_addresses", "_args", "_attachment")

    def __init__(self, args: Args, attachment: Attachment, leased: Sequence[Address]) -> None:
        self._args = args
        self._attachment = attachment
        self._addresses = leased

    def describe(self) -> list[str]:
        return []

    def apply(self, ends: Ends) -> None:
        del ends
        if not claim.holds(self._args, self._addresses):
            raise overtaken(self._attachment)
        self._args.confirm()


def overtaken(attachment: Attachment) -> CNIError:
    """The error of an ADD that was overtaken by a DEL of the same attachment."""
    return CNIError(
        errors.TRY_AGAIN_LATER,
        f"attach {attachment.alias()}: its lease or its link was taken away meanwhile",
        "a DEL of the same attachment came before this ADD had ended; what was begun has been "
        "rolled back",
    )
