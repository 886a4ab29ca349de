"""All Nodes as the store's leases, kept by what the API server tells of them.  Pure.

A lease goes with its Node, or when that says so: one whose annotations somebody has wiped, or
written wrong, is still the lease that it was.  Two Nodes with the same podCIDR are one lease, of
the Node that was known first.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from flanneld.plain import plain
from flanneld.subnet.keys import BadLease
from flanneld.subnet.kube import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flanneld.config import NetConf
    from flanneld.lease import Lease
    from flanneld.subnet.kube.nodes import Seen


class Mirror:
    """The Nodes by name, and their leases by key; ``name`` is that of this node's."""

    def __init__(self, conf: NetConf, own: str) -> None:
        self._conf, self.name = conf, own
        self._seen: dict[str, Seen] = {}
        self._of: dict[str, Lease] = {}
        self._leases: dict[str, Lease] = {}
        self._faults: dict[str, str] = {}
        self._held: Lease | None = None
        self._doubled = False
        self.leases: Mapping[str, Lease] = MappingProxyType(self._leases)
        self.faults: Mapping[str, str] = MappingProxyType(self._faults)

    @property
    def seen(self) -> Iterable[Seen]:
        """All Nodes."""
        return self._seen.values()

    @property
    def own(self) -> Seen | None:
        """This node's."""
        return self._seen.get(self.name)

    def __len__(self) -> int:
        return len(self._seen)

    def hold(self, lease: Lease) -> None:
        """Know this node's lease: it is among the leases whatever its Node says."""
        self._held = lease
        self._judge_own()
        self._index()

    def fault(self, name: str, text: str) -> None:
        """Say what is wrong with a Node, or with all if ``name`` is ""; nothing if that is ""."""
        if text:
            self._faults[name] = text
        else:
            self._faults.pop(name, None)

    def replace(self, found: Iterable[Seen]) -> None:
        """Take all Nodes that there are."""
        now = {node.name: node for node in found}
        for name in [*self._seen]:
            if name not in now:
                self._forget(name)
        self._judge_own()
        for node in now.values():
            self._take(node)
        self._index()

    def put(self, node: Seen) -> bool:
        """Take a Node that is new, or has changed; whether that means anything."""
        if self._seen.get(node.name) == node:
            return False
        before, fault = self._of.get(node.name), self._faults.get(node.name)
        self._take(node)
        after = self._of.get(node.name)
        if after != before:
            self._reindex(before, after)
        return after != before or fault != self._faults.get(node.name)

    def remove(self, name: str) -> bool:
        """Forget a Node that is gone; whether it meant anything."""
        before, fault = self._of.get(name), self._faults.get(name)
        self._forget(name)
        if name == self.name:
            self._judge_own()
        if before is not None:
            self._reindex(before, None)
        return before is not None or fault != self._faults.get(name)

    def _forget(self, name: str) -> None:
        self._seen.pop(name, None)
        self._of.pop(name, None)
        self._faults.pop(name, None)

    def _judge_own(self) -> None:
        """Say what is wrong with this node's Node, once there is a lease."""
        if self._held is None:
            return
        text = ""
        if self.own is None:
            text = f"there is no Node called {plain(self.name)}: kubelet makes it anew"
        else:
            try:
                nodes.own(self.own, self._conf, self._held.attributes)
                nodes.asked(self.own)
            except BadLease as error:
                text = str(error)
        self.fault(self.name, f"{text}; until then all stays as it was" if text else "")

    def _take(self, node: Seen) -> None:
        before, self._seen[node.name] = self._seen.get(node.name), node
        if node.name == self.name:
            self._judge_own()
            return
        self._faults.pop(node.name, None)
        same = before is not None and (before.uid, before.cidrs) == (node.uid, node.cidrs)
        try:
            lease = nodes.lease(node, self._conf)
        except BadLease as error:
            self._faults[node.name] = f"Node {plain(node.name)}: {error}"
        else:
            if lease is not None:
                self._of[node.name] = lease
                self._check_families(node, lease)
                return
            if node.said(nodes.MARKER) == "" and same and node.name in self._of:
                self._faults[node.name] = (
                    f"Node {plain(node.name)} has lost its annotations: its flanneld writes them"
                    " again; until then it is reached as before"
                )
        if not same or node.said(nodes.MARKER) not in ("", "true"):
            self._of.pop(node.name, None)

    def _check_families(self, node: Seen, lease: Lease) -> None:
        pools = {4: self._conf.network, 6: self._conf.network6}
        missing = {version for version, network in pools.items() if network is not None}
        missing -= {subnet.version for subnet in lease.subnets}
        if missing:
            self._faults[node.name] = (
                f"Node {plain(node.name)} has no podCIDR of IPv{missing.pop()}: its pods are not"
                " reached by that"
            )

    def _reindex(self, before: Lease | None, after: Lease | None) -> None:
        """Bring one lease up to date; all of them where two have the same subnets."""
        moved = before is None or after is None or before.key != after.key
        if self._doubled or (moved and after is not None and after.key in self._leases):
            self._index()
            return
        if before is not None and moved:
            self._leases.pop(before.key, None)
        if after is not None:
            self._leases[after.key] = after

    def _index(self) -> None:
        own = {} if self._held is None else {self._held.key: self._held}
        names: dict[str, str] = dict.fromkeys(own, self.name)
        self._doubled = False
        self._leases.clear()
        self._leases.update(own)
        for name, lease in self._of.items():
            other = names.setdefault(lease.key, name)
            if other == name:
                self._leases[lease.key] = lease
            else:
                self._doubled = True
                self._faults[name] = (
                    f"Node {plain(name)} has the same podCIDR as {plain(other)}, {lease.key}:"
                    " it is not reached"
                )
