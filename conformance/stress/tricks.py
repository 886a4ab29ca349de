"""The tricks of `hostile`, one a row: what is planted, what is called, whether it must be refused.

`plant` is a shell script that runs in the world before the call. `attached` plays the trick on a
complete attachment. `may_change` are parts of lines of a difference that the call is entitled to.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from conformance.stress.scene import CONTAINER, DATA

_LEASES = f"{DATA}/networks/cbr0"
_STATE = f"{DATA}/flannel/{CONTAINER}"
_INDEX = f"{DATA}/networks/.index"
_NEXT = "10.244.1.3 10.244.1.4 10.244.1.5 10.244.1.6 10.244.1.7 10.244.1.8 10.244.1.9"
_LEAVES = (  # what the DEL of a complete attachment takes away
    "host.links.veth",
    "host.addresses.veth",
    "host.sysctls.net/ipv4/conf/veth",
    "host.sysctls.net/ipv6/conf/veth",
    "host.neighbours: gone: {'dst': '10.244.1.",
    "pods.pod.",
    f"files.{_STATE}: gone",
    f"files.{_LEASES}/10.244.1.",
)


class Trick(NamedTuple):
    """One attempt; `refused` and `code` say what must come of it, where that is certain."""

    name: str
    verb: str = "ADD"
    env: dict[str, str] = {}  # noqa: RUF012 - never changed
    conf: dict[str, Any] = {}  # noqa: RUF012
    plant: str = ""
    refused: bool = False
    code: int = 0
    attached: bool = False
    may_change: tuple[str, ...] = ()


def _names() -> list[Trick]:
    """Names in the environment and in the conf, for each verb that takes them."""
    ids = ["..", ".", "../../decoy", "a/b", "/run/decoy/secret", "a\nb", "-rf", "a b", "x" * 300]
    ifnames = ["..", ".", "../x", "a/b", "a b", "a:b", "a\tb", "x" * 16, "/run/decoy"]
    networks = ["..", "../../../run/decoy", "a/b", ".index", "a\nb", "x" * 300]
    found = []
    for verb in ("ADD", "DEL", "CHECK"):
        found += [
            Trick(
                f"{verb} container {one[:20]!r}",
                verb,
                {"CNI_CONTAINERID": one},
                refused=True,
                code=4,
            )
            for one in ids
        ]
        found += [
            Trick(f"{verb} ifname {one!r}", verb, {"CNI_IFNAME": one}, refused=True, code=4)
            for one in ifnames
        ]
        found += [
            Trick(f"{verb} network {one[:20]!r}", verb, conf={"name": one}, refused=True, code=7)
            for one in networks
        ]
    return found


def _links() -> list[Trick]:
    """Links of the host and of the pod."""
    bridges = [
        "phys0",
        "lo",
        "..",
        "../x",
        "a/b",
        "x" * 16,
        "all",
        "default",
        "veth0/../lo",
        "",
        " ",
    ]
    found = [
        Trick(f"bridge {one!r}", conf={"delegate": {"bridge": one}}, refused=bool(one))
        for one in bridges
    ]
    found += [Trick(f"ifname {one!r}", env={"CNI_IFNAME": one}) for one in ("all", "default")]
    return [
        *found,
        Trick("ifname lo", env={"CNI_IFNAME": "lo"}, refused=True),
        Trick("DEL of lo", "DEL", {"CNI_IFNAME": "lo"}),
        Trick("DEL of a link of others", "DEL", plant="ip -n pod link add eth0 type bridge"),
        Trick(
            "DEL of a veth of others",
            "DEL",
            plant="ip link add some0 type veth peer name eth0 netns pod",
        ),
        Trick(
            "ADD over a link of others",
            plant="ip link add some0 type veth peer name eth0 netns pod",
            refused=True,
        ),
        Trick(
            "vlan on a physical link",
            conf={"delegate": {"bridge": "phys0", "vlan": 5}},
            refused=True,
        ),
        Trick(
            "promiscuous lo", conf={"delegate": {"bridge": "lo", "promiscMode": True}}, refused=True
        ),
    ]


def _namespaces() -> list[Trick]:
    """Network namespaces that are none, or the host's own."""
    found = []
    for path in ("/proc/self/ns/net", "/proc/thread-self/ns/net", "/run/decoy/netns/own"):
        env = {"CNI_NETNS": path}
        found += [
            Trick(f"ADD in {path}", env=env, refused=True, code=8),
            Trick(f"CHECK in {path}", "CHECK", env, refused=True),
            Trick(f"DEL in {path}", "DEL", env),
            Trick(f"DEL of lo in {path}", "DEL", env | {"CNI_IFNAME": "lo"}),
            Trick(f"DEL of phys0 in {path}", "DEL", env | {"CNI_IFNAME": "phys0"}),
        ]
    for path in (
        "/proc/self/ns/mnt",
        "/run/decoy/secret",
        "/run/decoy",
        "/dev/null",
        "relative",
        "/",
    ):
        env = {"CNI_NETNS": path}
        found += [
            Trick(f"ADD in {path}", env=env, refused=True),
            Trick(f"DEL in {path}", "DEL", env),
        ]
    fifo = "mkdir -p /run/trick; mkfifo /run/trick/fifo"
    found.append(
        Trick("ADD in a named pipe", env={"CNI_NETNS": "/run/trick/fifo"}, plant=fifo, refused=True)
    )
    found.append(Trick("DEL in a named pipe", "DEL", {"CNI_NETNS": "/run/trick/fifo"}, plant=fifo))
    return found


def _planted() -> list[Trick]:
    """Symbolic links, pipes and other things where files of the plugin should be."""
    places = {
        "state": f"{_STATE}",
        "state's draft": f"{DATA}/flannel/.{CONTAINER}.tmp",
        "lock": f"{_LEASES}/lock",
        "round robin": f"{_LEASES}/last_reserved_ip.0",
        "lease's draft": f"{_LEASES}/.new-lease",
        "index entry": f"{_INDEX}/cbr0/{CONTAINER}:eth0",
    }
    shapes = {
        "link to a file": "ln -sf /run/decoy/secret {}",
        "link to nowhere": "ln -sf /run/decoy/made {}",
        "link to a folder": "ln -sfn /run/decoy/folder {}",
        "named pipe": "rm -f {0}; mkfifo {0}",
        "folder": "rm -f {0}; mkdir {0}; echo x >{0}/x",
    }
    found = []
    for what, path in places.items():
        for shape, script in shapes.items():
            plant = f"mkdir -p $(dirname {path}); {script.format(path)}"
            name = f"{what} is a {shape}"
            found += [Trick(f"{verb}, {name}", verb, plant=plant) for verb in ("ADD", "DEL")]
    for shape, script in shapes.items():
        each = (
            f"for ip in {_NEXT}; do "
            + script.format(f"{_LEASES}/$ip").replace("\n", ";")
            + "; done"
        )
        found.append(Trick(f"ADD, leases are each a {shape}", plant=each))
        found.append(Trick(f"DEL, leases are each a {shape}", "DEL", plant=each))
    for path in (_INDEX, f"{_INDEX}/cbr0"):
        plant = f"rm -rf {path}; mkdir -p $(dirname {path}); ln -s /run/decoy/folder {path}"
        found += [Trick(f"{verb}, {path} is a link", verb, plant=plant) for verb in ("ADD", "DEL")]
    return found


def _contents() -> list[Trick]:
    """Files of the plugin that say something else than it wrote."""
    entry = f"mkdir -p {_INDEX}/cbr0; ln -sf %s {_INDEX}/cbr0/{CONTAINER}:eth0"
    sealed = f"{entry}; touch -r {_LEASES} {_INDEX}/cbr0"
    states = {
        "names a physical link": '{"name":"cbr0","type":"bridge","bridge":"phys0","ipMasq":false}',
        "names another bridge": '{"name":"cbr0","type":"bridge","bridge":"other0","ipMasq":false}',
        "names lo": '{"name":"cbr0","type":"bridge","bridge":"lo","ipMasq":false}',
        "names a program": '{"name":"cbr0","type":"../../../bin/rm"}',
        "names an absolute program": '{"name":"cbr0","type":"/bin/rm"}',
        "names a parent": '{"name":"cbr0","type":".."}',
        "names another network": '{"name":"other","type":"bridge","bridge":"cni0"}',
        "leads the leases away": '{"name":"cbr0","type":"bridge","bridge":"cni0",'
        '"ipam":{"type":"host-local","dataDir":"/run/decoy"}}',
        "names a strange ipam": '{"name":"cbr0","type":"bridge","bridge":"cni0",'
        '"ipam":{"type":"../rm"}}',
        "is a list": "[1, 2]",
        "is half": '{"name":"cbr0","type":"bri',
        "is binary": "\\377\\376\\0",
        "has wrong types": '{"name":"cbr0","type":"bridge","bridge":7,"ipam":[],"mtu":"x"}',
    }
    found = []
    for what, text in states.items():
        plant = f"mkdir -p {DATA}/flannel; printf '{text}' >{_STATE}"
        found.append(
            Trick(f"DEL, the state {what}", "DEL", plant=plant, may_change=(f"files.{_STATE}",))
        )
        changes = (*_LEAVES, f"files.{_STATE}")
        found.append(
            Trick(
                f"DEL of a pod, the state {what}",
                "DEL",
                plant=plant,
                attached=True,
                may_change=changes,
            )
        )
    targets = ("../../../../run/decoy/secret", "10.244.1.2", "/run/decoy/secret", "lock")
    found += [Trick(f"DEL, the index says {one}", "DEL", plant=sealed % one) for one in targets]
    for owner in (
        "../../run/decoy\\r\\neth0",
        "cid-neighbour\\r\\n../eth0",
        "\\0\\0",
        "a\\r\\nb\\r\\nc",
    ):
        plant = f"for ip in {_NEXT}; do printf '{owner}' >{_LEASES}/$ip; done"
        found += [
            Trick(f"{verb}, leases say {owner!r}", verb, plant=plant) for verb in ("ADD", "DEL")
        ]
    return found


def _runtime() -> list[Trick]:
    """What a runtime says: an earlier result, attachments, arguments, delegates."""
    ips = [{"address": "192.0.2.1/24", "interface": 0}, {"address": "198.51.100.1/24"}]
    own = {"cniVersion": "1.1.0", "ips": ips}
    links = [{"name": name} for name in ("phys0", "other0", "lo", "cni0")]
    inside = [{"name": "phys0", "sandbox": "/proc/self/ns/net"}]
    found = []
    for what, interfaces in (("host links", links), ("the host's namespace", inside)):
        conf = {"prevResult": own | {"interfaces": interfaces}}
        found += [
            Trick(f"{verb}, the result names {what}", verb, conf=conf) for verb in ("DEL", "CHECK")
        ]
        found.append(
            Trick(
                f"DEL of a pod, the result names {what}",
                "DEL",
                conf=conf,
                attached=True,
                may_change=_LEAVES,
            )
        )
    for kind in ("../../../bin/rm", "/bin/rm", "..", ".", "a/b", "", "flannel"):
        found.append(Trick(f"delegate {kind!r}", conf={"delegate": {"type": kind}}, refused=True))
        found.append(Trick(f"ipam {kind!r}", conf={"ipam": {"type": kind}}, refused=bool(kind)))
    for ip in ("192.0.2.1", "10.244.1.1", "10.244.1.2", "10.244.1.255", "../lock", "lock", "::"):
        found.append(
            Trick(
                f"CNI_ARGS asks for {ip}",
                env={"CNI_ARGS": f"IgnoreUnknown=1;IP={ip}"},
                refused=True,
            )
        )
    for path in ("/run/decoy/secret", "/run/decoy", "/dev/zero", "/dev/full", "/run/trick/fifo"):
        fifo = "mkdir -p /run/trick; mkfifo /run/trick/fifo"
        found.append(
            Trick(f"subnetFile {path}", conf={"subnetFile": path}, plant=fifo, refused=True)
        )
        found.append(
            Trick(
                f"dataDir {path}/x",
                conf={"dataDir": f"{path}/x/y"},
                plant=fifo if "trick" in path else "",
            )
        )
    return [one for one in found if one.name != "dataDir /run/decoy/x"]


TRICKS = [*_names(), *_links(), *_namespaces(), *_planted(), *_contents(), *_runtime()]
