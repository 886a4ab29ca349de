"""A leg of a packet's way: through this node, out of it, or into it.  Read, not judged.

The kernel is asked what it does with such a packet, with its source, the link by which it comes,
and the mark that the packet filters have given it until then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from flanneld.firewall.verdict import Verdict, judge
from flanneld.kernel import forwarding, policy, underlay
from netlink import rtnl
from netlink.nlmsg import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.desired import AnyAddress
    from flanneld.firewall.chains import Firewall
    from flanneld.firewall.packet import Packet
    from netlink.handle import Handle
    from netlink.link import Link

Course = Literal["through", "out", "in"]

_BEFORE: dict[Course, tuple[str, ...]] = {
    "through": ("ingress", "bridge prerouting", "bridge input", "prerouting"),
    "in": ("ingress", "bridge prerouting", "bridge input", "prerouting"),
    "out": (),
}
_AFTER: dict[Course, tuple[str, ...]] = {
    "through": ("forward", "postrouting", "bridge output", "bridge postrouting", "egress"),
    "in": ("input",),
    "out": ("output", "postrouting", "bridge output", "bridge postrouting", "egress"),
}


@dataclass(frozen=True, slots=True)
class Taken:
    """The route that the kernel takes to an address; ``refusal`` and ``errno`` if it has none.

    ``text`` is as ip(8) spells the route, ``link`` where it leads out.
    """

    route: rtnl.Route | None = None
    text: str = ""
    link: Link | None = None
    refusal: str = ""
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Leg:
    """What becomes of a packet.

    ``packet`` is as it is in the end; ``taken`` None if the route was not asked for.  ``switch`` is
    the setting that keeps it from being passed on, ``reverse`` the one by which it is refused: it
    has not come by the link that leads back, which is ``back``, as far as that is known.  ``rules``
    are the unusual rules of policy routing that apply to it.
    """

    course: Course
    packet: Packet
    source: AnyAddress
    target: AnyAddress
    taken: Taken | None
    verdict: Verdict
    switch: str = ""
    reverse: str = ""
    back: str = ""
    rules: tuple[policy.Rule, ...] = ()


class Follower:
    """Asks the kernel, by a handle, and packet filters that were read before."""

    def __init__(self, handle: Handle, firewall: Firewall) -> None:
        self.handle = handle
        self.firewall = firewall
        self._rules: dict[int, list[policy.Rule]] = {}

    def take(
        self,
        address: AnyAddress,
        source: AnyAddress | None = None,
        *,
        iif: str = "",
        oif: str = "",
        mark: int = 0,
    ) -> Taken:
        """Ask for a route, as ``underlay.ask`` does, with links by name. OSError."""
        try:
            answer = underlay.ask(
                self.handle,
                address,
                matched=True,
                source=source,
                iif=self._index(iif),
                oif=self._index(oif),
                mark=mark,
            )
        except NetlinkError as error:
            return Taken(refusal=str(error), errno=error.errno or 0)
        route = rtnl.Route.decode(answer)
        link = self.handle.get_link(route.index) if route.index else None
        return Taken(route, underlay.describe(self.handle, route), link)

    def follow(
        self, course: Course, packet: Packet, pair: tuple[AnyAddress, AnyAddress] | None
    ) -> Leg:
        """Follow a packet; ``pair`` are a source and a target of it, to ask the route for.

        Without them no route is asked, and the packet's ``oif`` counts.  What is made here and has
        an ``oif`` goes out there, whatever other routes there are. OSError.
        """
        before = _pass(self.firewall, _BEFORE[course], replace(packet, oif=""))
        packet = replace(before.packet, oif=packet.oif)
        taken, rules = None, []
        if pair is not None:
            source, target = pair
            bound = packet.oif if course == "out" else ""
            mark = packet.mark or 0
            taken = self.take(target, source, iif=packet.iif, oif=bound, mark=mark)
            out = taken.link.name if taken.link is not None and course != "in" else ""
            packet = replace(packet, oif=out)
            rules = self._applying(packet, *pair)
        after = before if before.dropped else _pass(self.firewall, _AFTER[course], packet)
        verdict = replace(after, perhaps=tuple(dict.fromkeys((*before.perhaps, *after.perhaps))))
        source, target = pair or (packet.source[0], packet.target[0])
        leg = Leg(course, packet, source, target, taken, verdict, rules=tuple(rules))
        return self._with_switches(leg) if packet.iif else leg

    def _index(self, name: str) -> int:
        link = self.handle.get_link(name) if name else None
        return link.index if link is not None else 0

    def _applying(
        self, packet: Packet, source: AnyAddress, target: AnyAddress
    ) -> list[policy.Rule]:
        if packet.version not in self._rules:
            self._rules[packet.version] = policy.read(self.handle, packet.version)
        return [
            rule
            for rule in self._rules[packet.version]
            if not rule.is_usual and rule.applies(source, target, packet.iif, packet.mark or 0)
        ]

    def _with_switches(self, leg: Leg) -> Leg:
        version, iif = leg.packet.version, leg.packet.iif
        switch = forwarding.obstacle(version, iif) if leg.course == "through" else ""
        if version == 6:
            return replace(leg, switch=switch)
        reverse = back = ""
        if leg.taken is not None and leg.taken.errno and self._is_known(leg):
            reverse = forwarding.filters_reverse_path(iif)
            link = self.take(leg.source).link
            back = link.name if link is not None else ""
        return replace(leg, switch=switch, reverse=reverse, back=back)

    def _is_known(self, leg: Leg) -> bool:
        """Whether the target has a route for packets that have come by no link."""
        refused = any(rule.refuses for rule in leg.rules)
        return not refused and not self.take(leg.target).errno


def _pass(firewall: Firewall, hooks: Iterable[str], packet: Packet) -> Verdict:
    """Take a packet through some hooks, to the first that drops it."""
    verdict = Verdict(packet)
    for hook in hooks:
        bridged = hook.startswith("bridge")
        seen = replace(verdict.packet, iif="", oif="") if bridged else verdict.packet
        found = judge(firewall, hook, seen)
        kept = replace(found.packet, iif=packet.iif, oif=packet.oif)
        verdict = Verdict(kept, found.dropped, (*verdict.perhaps, *found.perhaps))
        if found.dropped is not None:
            break
    return verdict
