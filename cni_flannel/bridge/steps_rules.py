"""Steps in the packet filter: masquerading and the check of a pod's source MAC.

Imports: ``kernel``; the rule writers only when a configuration asks for rules.
"""

from __future__ import annotations

from cni_flannel.bridge.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.attachment import Attachment
    from cni.cidr import Prefix
    from cni_flannel.bridge.ends import Ends


class Masquerade(Step):
    """Let the pod speak to the world under the node's address."""

    __slots__ = ("attachment", "backend", "environ", "prefixes")

    def __init__(
        self,
        attachment: Attachment,
        prefixes: Sequence[Prefix],
        backend: str | None,
        environ: dict[str, str],
    ) -> None:
        self.attachment = attachment
        self.prefixes = list(prefixes)
        self.backend = backend
        self.environ = environ

    def describe(self) -> list[str]:
        backend = self.backend or "iptables or nftables"
        return [f"masquerade {prefix} ({backend})" for prefix in self.prefixes]

    def apply(self, ends: Ends) -> None:
        del ends
        from cni_flannel.kernel import masq  # most nodes leave masquerading to the daemon

        masq.setup(self.backend, *_names(self.attachment), self.prefixes, self.environ)

    def undo(self, ends: Ends) -> None:
        del ends
        from cni_flannel.kernel import masq

        masq.teardown(*_names(self.attachment), self.environ, self.prefixes)


class CheckSourceMAC(Step):
    """Drop frames from the pod's port that do not carry the pod's MAC."""

    __slots__ = ("attachment", "environ", "mac", "name")

    def __init__(
        self, attachment: Attachment, name: str, mac: str, environ: dict[str, str]
    ) -> None:
        self.attachment = attachment
        self.name = name
        self.mac = mac
        self.environ = environ

    def describe(self) -> list[str]:
        return [f"nftables bridge nat: from {self.name} accept only source MAC {self.mac}"]

    def apply(self, ends: Ends) -> None:
        del ends
        from cni_flannel.kernel import macspoof  # rarely asked for

        _, container_id, ifname = _names(self.attachment)
        macspoof.setup(self.name, self.mac, container_id, ifname, self.environ)

    def undo(self, ends: Ends) -> None:
        del ends
        from cni_flannel.kernel import macspoof

        _, container_id, ifname = _names(self.attachment)
        macspoof.teardown(container_id, ifname, self.environ)


def _names(attachment: Attachment) -> tuple[str, str, str]:
    return attachment.network, attachment.container_id, attachment.ifname
