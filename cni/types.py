"""One call of a plugin (`Args`) and, for the type checker, the shapes of the JSON objects.

Inside the project a result always has the shape of version 1.1.0, addresses as strings;
`cni.version` converts at the edges. JSON objects stay dicts, so that unknown keys survive.
Imports nothing at run time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol, TypedDict

    class DNS(TypedDict, total=False):
        """Resolver settings (spec section 5)."""

        nameservers: list[str]
        domain: str
        search: list[str]
        options: list[str]

    class Route(TypedDict, total=False):
        """A route in the container; `dst` is a CIDR, `gw` an address, the rest kernel numbers."""

        dst: str
        gw: str
        mtu: int
        advmss: int
        priority: int
        table: int
        scope: int

    class Interface(TypedDict, total=False):
        """A link; `sandbox` is the path of its network namespace, absent on the host."""

        name: str
        mac: str
        mtu: int
        sandbox: str
        socketPath: str
        pciID: str

    class IPConfig(TypedDict, total=False):
        """An address with its prefix length, on `interfaces[interface]` of the same result."""

        address: str
        gateway: str
        interface: int

    class Result(TypedDict, total=False):
        """What ADD returns, in the shape of version 1.1.0."""

        cniVersion: str
        interfaces: list[Interface]
        ips: list[IPConfig]
        routes: list[Route]
        dns: DNS

    class Plugin(Protocol):
        """The verbs of a plugin, whether a module of ours or an executable."""

        def cmd_add(self, args: Args) -> Mapping[str, Any]:
            """ADD: attach, and return the result in the shape of 1.1.0."""

        def cmd_del(self, args: Args) -> None:
            """DEL: detach; what is gone already is fine."""

        def cmd_check(self, args: Args) -> None:
            """CHECK: raise if the attachment is not as its result says."""

        def cmd_gc(self, args: Args) -> None:
            """GC: remove what belongs to attachments that are not listed."""

        def cmd_status(self, args: Args) -> None:
            """STATUS: raise if an ADD would fail now."""

    class Resident(Protocol):
        """What a process that serves many calls lends to one of them (`cni_flannel.resident`).

        `netns_file` opens the namespace of CNI_NETNS, whatever the caller's path means here; ""
        if it is gone. `connection` is a descriptor that hangs up when the caller does.
        """

        netns_file: str
        connection: int
        limit_s: float

        def require_caller(self) -> None:
            """CNIError 11 if the caller is known not to wait for the answer any more."""

        def confirm_caller(self) -> None:
            """CNIError 11 unless the caller says that it waits."""

        def step_aside(self) -> None:
            """Let other calls go on: what comes now may take long."""

        def delete_link(self, index: int, removals: Sequence[Any]) -> None:
            """Delete a link of the host, after these netlink requests; what is gone is fine."""

    class NetConf(TypedDict, total=False):
        """The keys of a conf that the spec itself gives a meaning to."""

        cniVersion: str
        name: str
        type: str
        prevResult: dict[str, Any]
        runtimeConfig: dict[str, Any]
        args: dict[str, Any]
        ipam: dict[str, Any]
        dns: DNS
        capabilities: dict[str, bool]
        ipMasq: bool


class Args:
    """What one call of a plugin was given; a plain value, shared by no two calls.

    `conf` is the parsed conf, the spec's own keys in canonical case. `environ` is the whole
    environment, for delegates. `note` writes one line for a human to stderr. `resident` is None
    in a process that was started for this call alone. `wanted` are asked when all of an ADD is
    done: CNIError if it has to be taken back.
    """

    __slots__ = (
        "cni_args",
        "command",
        "conf",
        "container_id",
        "environ",
        "ifname",
        "netns",
        "note",
        "path",
        "resident",
        "wanted",
    )

    def __init__(
        self,
        *,
        command: str,
        container_id: str = "",
        netns: str = "",
        ifname: str = "",
        cni_args: str = "",
        path: str = "",
        conf: dict[str, Any],
        environ: dict[str, str],
        note: Callable[[str], None],
        resident: Resident | None = None,
        wanted: tuple[Callable[[], None], ...] = (),
    ) -> None:
        self.command = command
        self.container_id = container_id
        self.netns = netns
        self.ifname = ifname
        self.cni_args = cni_args
        self.path = path
        self.conf = conf
        self.environ = environ
        self.note = note
        self.resident = resident
        self.wanted = wanted

    def replaced(self, **changes: Any) -> Args:
        """Return a copy with some fields changed, e.g. `args.replaced(conf=delegate_conf)`."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return Args(**{**fields, **changes})

    @property
    def netns_file(self) -> str:
        """What to open for the namespace: CNI_NETNS itself, or what the caller opened for us."""
        return self.netns if self.resident is None else self.resident.netns_file

    def require_caller(self) -> None:
        """CNIError 11 if a resident process serves the call and the caller has given up."""
        if self.resident is not None:
            self.resident.require_caller()

    def confirm(self) -> None:
        """At the end of an ADD: CNIError 11 if nobody wants it any more."""
        for still_wanted in self.wanted:
            still_wanted()

    @property
    def debug(self) -> bool:
        """Whether the caller asked for the steps to be told."""
        return self.environ.get("CNI_FLANNEL_DEBUG") == "1"
