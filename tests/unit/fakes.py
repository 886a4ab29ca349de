"""Stand-ins for the kernel and for plugins, so that what decides can be tested without root."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from cni import callname
from cni.cidr import parse_prefix
from cni.types import Args
from cni_flannel.bridge.ends import Ends
from netlink import rtnl
from netlink.nlmsg import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netlink.nlmsg import Message

POD_FD = 1000  # a number that no open file has
CALL = "a1b2c3d4e5f6-1234567890123456789"
NSID = 5  # by which the fake host knows the fake pod's namespace


def args(conf: dict[str, Any], notes: list[str] | None = None, **fields: Any) -> Args:
    said = [] if notes is None else notes
    given: dict[str, Any] = {
        "command": "ADD",
        "container_id": "c1",
        "netns": "/run/netns/pod",
        "ifname": "eth0",
        "environ": {callname.VARIABLE: CALL},
        "note": said.append,
    }
    return Args(**{**given, **fields, "conf": conf})


def link(name: str, index: int, kind: str = "veth", **fields: Any) -> rtnl.Link:
    """A link as the kernel would describe it; up unless told otherwise."""
    made = rtnl.Link(index, fields.pop("flags", rtnl.IFF_UP), {})
    made.name, made.kind, made.mtu, made.mac = name, kind, 1500, f"02:00:00:00:00:{index:02x}"
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def pair(host_name: str, host_index: int, ifname: str = "eth0", **host: Any) -> tuple[Any, Any]:
    """Both ends of a veth pair between the host and the pod, where it has the index 2."""
    return (
        link(host_name, host_index, **{"link": 2, "link_netnsid": NSID, **host}),
        link(ifname, 2, link=host_index, link_netnsid=0),
    )


def port(*, hairpin: bool = False, isolated: bool = False) -> rtnl.Port:
    return rtnl.Port(rtnl.BR_STATE_FORWARDING, hairpin=hairpin, isolated=isolated)


class FakeHandle:
    """Answers from lists; remembers what it was told to do; refuses what ``refusal`` picks."""

    def __init__(self, *links: rtnl.Link) -> None:
        self.known = list(links)
        self.on: dict[int, list[str]] = {}
        self.routing: list[rtnl.Route] = []
        self.done: list[Message] = []
        self.refusal: Callable[[Message], int] = lambda _: 0
        self.closed = False

    def get_link(self, which: int | str) -> rtnl.Link | None:
        if which == 0:
            raise NetlinkError(errno.EINVAL)  # as the kernel does
        return next((one for one in self.known if which in (one.index, one.name)), None)

    def links(self, *, master: int | None = None, kind: str | None = None) -> list[rtnl.Link]:
        return [
            one
            for one in self.known
            if (master is None or one.master == master) and (kind is None or one.kind == kind)
        ]

    def addresses(self, index: int = 0, family: int = 0) -> list[rtnl.InterfaceAddress]:
        assert family == 0
        texts = self.on.get(index, [])
        return [rtnl.InterfaceAddress(index, parse_prefix(text), 0, 0) for text in texts]

    def routes(self, family: int, **_: int) -> list[rtnl.Route]:
        return [route for route in self.routing if route.dst.family == family]

    def nsid(self, netns_fd: int) -> int:
        assert netns_fd == POD_FD
        return NSID

    def execute(self, *messages: Message) -> None:
        refused = [self.refusal(message) for message in messages]
        self.done += [
            message for message, number in zip(messages, refused, strict=True) if not number
        ]
        self.known = [one for one in self.known if rtnl.del_link(one.index) not in self.done]
        errors = []
        for position, number in enumerate(refused):
            if number:
                errors.append(NetlinkError(number))
                errors[-1].position = position
        if errors:
            errors[0].also = tuple(errors[1:])
            raise errors[0]

    def close(self) -> None:
        self.closed = True


class FakeEnds(Ends):
    """``Ends`` on two fake handles; without ``pod`` the pod's namespace is gone."""

    host: Any

    def __init__(self, host: FakeHandle | None = None, pod: FakeHandle | None = None) -> None:
        self.host = host or FakeHandle()
        self._pod: Any = pod
        self.netns_fd = -1 if pod is None else POD_FD
        self._resident = None

    def drop_link(self, index: int, *removals: Message) -> None:
        """In this process: the fake handle notes what was asked of it."""
        self.drop(*removals, rtnl.del_link(index))

    def close(self) -> None:
        self.host.close()


def route(dst: str, gw: str | None = None) -> rtnl.Route:
    from cni.cidr import parse_address

    made = rtnl.Route(parse_prefix(dst), (2, 0, 0, 0, 254, 3, 0, 1, 0), {})
    made.gw = None if gw is None else parse_address(gw)
    made.gateways = [made.gw]
    return made


class FakePlugin:
    """A plugin that remembers its calls and fails in the verbs it is given errors for."""

    def __init__(self, result: dict[str, Any] | None = None, /, **errors: BaseException) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._result = result or {}
        self._errors = errors

    def _called(self, verb: str, args: Args) -> None:
        self.calls.append((verb, args.conf))
        if verb in self._errors:
            raise self._errors[verb]

    def cmd_add(self, args: Args) -> dict[str, Any]:
        self._called("ADD", args)
        return self._result

    def cmd_del(self, args: Args) -> None:
        self._called("DEL", args)

    def cmd_check(self, args: Args) -> None:
        self._called("CHECK", args)

    def cmd_gc(self, args: Args) -> None:
        self._called("GC", args)

    def cmd_status(self, args: Args) -> None:
        self._called("STATUS", args)

    @property
    def verbs(self) -> Sequence[str]:
        return [verb for verb, _ in self.calls]
