"""Masquerading in the kernel: the rules, the traffic, and Go's plugin before and after ours."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni import process
from cni.cidr import parse_prefix
from cni.errors import CNIError
from cni_flannel.kernel import masq, rulenames
from tests.kernel.privatens import inside, needs_root, new_pod, private, sh, spawn_inside

if TYPE_CHECKING:
    from cni.cidr import Prefix

pytestmark = [pytest.mark.kernel, needs_root]

ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
GO_BRIDGE = "/usr/lib/cni/bridge"
PREFIXES = [parse_prefix("10.7.0.2/24"), parse_prefix("fd00:7::2/64")]
OTHER = [parse_prefix("10.7.0.3/24"), parse_prefix("fd00:7::3/64")]
CHAIN = rulenames.chain("net", "cid")

needs_go = pytest.mark.skipif(not os.path.exists(GO_BRIDGE), reason=f"no {GO_BRIDGE}")


@pytest.fixture(params=["iptables-nft", "iptables-legacy", "nftables"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def backend_of(kind: str, folder: Path) -> tuple[str, dict[str, str]]:
    """Return the backend's name and an environment whose iptables is of that kind."""
    if kind == "nftables":
        return "nftables", ENVIRON
    multi = shutil.which(f"xtables-{kind.removeprefix('iptables-')}-multi", path=ENVIRON["PATH"])
    if multi is None:
        pytest.skip(f"no {kind}")
    for family in ("iptables", "ip6tables"):
        for name in (family, f"{family}-restore", f"{family}-save"):
            (folder / name).symlink_to(multi)
    return "iptables", {"PATH": f"{folder}:{ENVIRON['PATH']}"}


def saved(environ: dict[str, str] = ENVIRON) -> list[str]:
    """Return the rules and chains of both families' table nat, without the counters' lines."""
    text = sh("iptables-save -t nat; ip6tables-save -t nat", **environ)
    return [line for line in text.splitlines() if line.startswith(("-", ":CNI-"))]


def nft_rules() -> dict[str, list[dict[str, Any]]]:
    listed = json.loads(sh("nft -j list ruleset"))["nftables"]
    rules: dict[str, list[dict[str, Any]]] = {}
    for item in listed:
        if "rule" in item and item["rule"]["table"] == "cni_plugins_masquerade":
            rules.setdefault(item["rule"]["chain"], []).append(item["rule"])
    return rules


def rules(environ: dict[str, str] = ENVIRON) -> int:
    """Count the rules of attachments, in whatever backend."""
    return len(saved(environ)) + len(nft_rules().get("masq_checks", []))


@private
def test_the_iptables_rules_are_the_documented_ones() -> None:
    masq.setup("iptables", "net", "cid", "eth0", PREFIXES, ENVIRON)
    note = r'-m comment --comment "name: \"net\" id: \"cid\""'
    assert saved() == [
        f":{CHAIN} - [0:0]",
        f"-A POSTROUTING -s 10.7.0.2/32 {note} -j {CHAIN}",
        f"-A {CHAIN} -d 10.7.0.0/24 {note} -j ACCEPT",
        f"-A {CHAIN} ! -d 224.0.0.0/4 {note} -j MASQUERADE",
        f":{CHAIN} - [0:0]",
        f"-A POSTROUTING -s fd00:7::2/128 {note} -j {CHAIN}",
        f"-A {CHAIN} -d fd00:7::/64 {note} -j ACCEPT",
        f"-A {CHAIN} ! -d ff00::/8 {note} -j MASQUERADE",
    ]


@private
def test_the_nftables_rules_are_the_documented_ones() -> None:
    masq.setup("nftables", "net", "cid", "eth0", PREFIXES, ENVIRON)
    comment = "a4861f4ae9f7d238-f67e6d6b66294011, net: net, if: eth0, id: cid"
    listing = sh("nft list table inet cni_plugins_masquerade")
    lines = [line.strip() for line in listing.splitlines()]
    assert lines == [
        "table inet cni_plugins_masquerade {",
        'comment "Masquerading for plugins from github.com/containernetworking/plugins"',
        "chain masq_checks {",
        (
            'comment "Masquerade traffic from certain IPs to any (non-multicast) IP '
            'outside their subnet"'
        ),
        f'ip saddr 10.7.0.2 ip daddr != 10.7.0.0/24 masquerade comment "{comment}"',
        f'ip6 saddr fd00:7::2 ip6 daddr != fd00:7::/64 masquerade comment "{comment}"',
        "}",
        "",
        "chain postrouting {",
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip daddr 224.0.0.0/4 return",
        "ip6 daddr ff00::/8 return",
        "goto masq_checks",
        "}",
        "}",
    ]


@private
def test_setup_again_changes_nothing_and_teardown_leaves_nothing(kind: str, tmp_path: Path) -> None:
    backend, environ = backend_of(kind, tmp_path)
    masq.setup(backend, "net", "cid", "eth0", PREFIXES, environ)
    once = rules(environ)
    masq.setup(backend, "net", "cid", "eth0", PREFIXES, environ)
    assert rules(environ) == once
    assert masq.verify(backend, "net", "cid", "eth0", PREFIXES, environ) == []
    masq.setup(backend, "net", "other", "eth0", OTHER, environ)
    masq.teardown("net", "cid", "eth0", environ)
    assert rules(environ) == once  # the other one's
    assert masq.verify(backend, "net", "other", "eth0", OTHER, environ) == []
    masq.teardown("net", "cid", "eth0", environ)
    masq.teardown("net", "other", "eth0", environ)
    assert rules(environ) == 0


@private
def test_verify_names_each_missing_rule(kind: str, tmp_path: Path) -> None:
    backend, environ = backend_of(kind, tmp_path)
    assert masq.verify(backend, "net", "cid", "eth0", PREFIXES, environ) != []
    masq.setup(backend, "net", "cid", "eth0", PREFIXES[:1], environ)
    missing = masq.verify(backend, "net", "cid", "eth0", PREFIXES, environ)
    assert len(missing) == 1
    assert "ip6" in missing[0]
    if backend == "iptables":
        sh(f"iptables -t nat -F {CHAIN}", **environ)
        missing = masq.verify(backend, "net", "cid", "eth0", PREFIXES[:1], environ)
        assert [line.rpartition(" ")[2] for line in missing] == ["ACCEPT", "MASQUERADE"]
    else:
        sh("nft flush chain inet cni_plugins_masquerade postrouting")
        assert "postrouting" in masq.verify(backend, "net", "cid", "eth0", PREFIXES[:1], ENVIRON)[0]
    masq.setup(backend, "net", "cid", "eth0", PREFIXES, environ)
    assert masq.verify(None, "net", "cid", "eth0", PREFIXES, environ) == []


@private
def test_collect_keeps_the_living_and_the_strangers(kind: str, tmp_path: Path) -> None:
    backend, environ = backend_of(kind, tmp_path)
    living = [("b", "eth0"), ("b", "net1"), ("unknown", "eth0")]
    masq.setup(backend, "net", "a", "eth0", [parse_prefix("10.7.0.5/24")], environ)
    masq.setup(backend, "net", "b", "eth0", [parse_prefix("10.7.0.6/24")], environ)
    masq.setup(backend, "net", "b", "net1", [parse_prefix("10.8.0.6/24")], environ)
    masq.setup(backend, "net", "b", "gone", [parse_prefix("10.9.0.6/24")], environ)
    masq.setup(backend, "net2", "a", "eth0", [parse_prefix("10.6.0.5/24")], environ)
    sh("iptables -t nat -N CNI-HOSTPORT; iptables -t nat -A POSTROUTING -j CNI-HOSTPORT", **environ)
    masq.collect("net", living, environ)
    assert masq.verify(backend, "net", "b", "eth0", [parse_prefix("10.7.0.6/24")], environ) == []
    assert masq.verify(backend, "net", "b", "net1", [parse_prefix("10.8.0.6/24")], environ) == []
    assert masq.verify(backend, "net2", "a", "eth0", [parse_prefix("10.6.0.5/24")], environ) == []
    assert masq.verify(backend, "net", "a", "eth0", [parse_prefix("10.7.0.5/24")], environ) != []
    masq.collect("net", [], environ)
    masq.collect("net2", [], environ)
    assert saved(environ) == [":CNI-HOSTPORT - [0:0]", "-A POSTROUTING -j CNI-HOSTPORT"]
    assert "masq_checks" not in nft_rules()


@private
def test_interfaces_of_one_container_do_not_disturb_each_other(kind: str, tmp_path: Path) -> None:
    backend, environ = backend_of(kind, tmp_path)
    masq.setup(backend, "net", "cid", "eth0", PREFIXES, environ)
    masq.setup(backend, "net", "cid", "net1", OTHER, environ)
    masq.teardown("net", "cid", "eth0", environ, PREFIXES)
    assert masq.verify(backend, "net", "cid", "net1", OTHER, environ) == []
    assert masq.verify(backend, "net", "cid", "eth0", PREFIXES, environ) != []
    masq.teardown("net", "cid", "net1", environ, OTHER)
    assert rules(environ) == 0


@private
def test_a_teardown_with_nothing_to_do_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(argv: list[str], **_: object) -> None:
        raise AssertionError(argv)

    monkeypatch.setattr(process, "run", refuse)
    masq.teardown("net", "cid", "eth0", ENVIRON)
    masq.collect("net", [], ENVIRON)


@private
def test_a_chain_without_a_jump_goes_too() -> None:
    sh(f"iptables -t nat -N {CHAIN}")  # as a plugin killed in the middle leaves it
    masq.teardown("net", "cid", "eth0", ENVIRON)
    assert saved() == []


@private
def test_half_of_the_rules_is_completed() -> None:
    note = '-m comment --comment \'name: "net" id: "cid"\''
    sh(f"iptables -t nat -N {CHAIN}")
    sh(f"iptables -t nat -A {CHAIN} ! -d 224.0.0.0/4 {note} -j MASQUERADE")
    masq.setup("iptables", "net", "cid", "eth0", PREFIXES, ENVIRON)
    assert masq.verify("iptables", "net", "cid", "eth0", PREFIXES, ENVIRON) == []
    assert [line.rpartition(" ")[2] for line in saved()[1:4]] == [CHAIN, "ACCEPT", "MASQUERADE"]


@private
def test_a_refusal_rolls_back_and_does_not_look_like_success(tmp_path: Path) -> None:
    (tmp_path / "ip6tables-restore").write_text(
        "#!/bin/sh\necho 'x: No such file or directory' >&2; exit 2"
    )
    (tmp_path / "ip6tables-restore").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{ENVIRON['PATH']}"}
    with pytest.raises(CNIError, match="ip6tables-restore: status 2") as caught:
        masq.setup("iptables", "net", "cid", "eth0", PREFIXES, environ)
    assert "no such file" not in str(caught.value).lower()
    assert saved() == []


@private
def test_without_a_backend_nftables_takes_over_where_iptables_is_broken(tmp_path: Path) -> None:
    for name in ("iptables", "iptables-restore", "ip6tables", "ip6tables-restore"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'table nat is incompatible' >&2; exit 1")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{ENVIRON['PATH']}"}
    masq.setup(None, "net", "cid", "eth0", PREFIXES, environ)
    assert masq.verify(None, "net", "cid", "eth0", PREFIXES, environ) == []
    assert len(nft_rules()["masq_checks"]) == 2
    with pytest.raises(CNIError, match="incompatible"):
        masq.setup("iptables", "net", "cid2", "eth0", OTHER, environ)


@private
def test_two_dozen_at_once(kind: str, tmp_path: Path) -> None:
    backend, environ = backend_of(kind, tmp_path)

    def at_once(body: Any) -> None:
        pids = []
        for n in range(24):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    body(n)
                    status = 0
                finally:
                    os._exit(status)
            pids.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 24

    def prefixes(n: int) -> list[Prefix]:
        return [parse_prefix(f"10.7.0.{n + 2}/24"), parse_prefix(f"fd00:7::{n + 2:x}/64")]

    at_once(lambda n: masq.setup(backend, "net", f"c{n}", "eth0", prefixes(n), environ))
    for n in range(24):
        assert masq.verify(backend, "net", f"c{n}", "eth0", prefixes(n), environ) == []
    assert len(nft_rules().get("postrouting", [])) == (3 if backend == "nftables" else 0)
    # every attachment is taken down by two at a time
    at_once(lambda n: masq.teardown("net", f"c{n // 2}", "eth0", environ))
    at_once(lambda n: masq.teardown("net", f"c{12 + n // 2}", "eth0", environ))
    assert rules(environ) == 0


# ------------------------------------------------------------------------------------------ traffic


UNANSWERED = Path("/run/unanswered")  # the tests' own /run


def serve_udp(address: str) -> None:
    """Answer each datagram with the address it came from; note those that no way leads back to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, 9))
    while True:
        word, peer = server.recvfrom(100)
        try:
            server.sendto(word + peer[0].encode(), peer)
        except OSError:
            with UNANSWERED.open("ab") as file:
                file.write(word)


def seen_by(address: str) -> str:
    """Return the source address that the server there sees, "" when it cannot answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.settimeout(0.1)
    word = os.urandom(8)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        client.sendto(word, (address, 9))
        try:
            answer = client.recv(100)
            assert answer.startswith(word)
            return answer[len(word) :].decode()
        except TimeoutError:
            if UNANSWERED.exists() and word in UNANSWERED.read_bytes():
                return ""
    raise AssertionError(f"nobody is at {address}")


def wire_up() -> tuple[int, int, int]:
    """Make a pod, a neighbour in its subnet behind a router, and a machine outside.

    The machine outside knows no way back to the pods: it answers only what is masqueraded.
    """
    pod, neighbour, outside = new_pod(), new_pod(), new_pod()
    sh(f"""
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    link() {{
        ip link add $1 type veth peer name eth0 netns $2
        ip link set $1 up
        nsenter -t $2 -n ip link set eth0 up
    }}
    link pod {pod}; link near {neighbour}; link far {outside}
    ip addr add 10.7.0.1/32 dev pod; ip -6 addr add fd00:7::1/128 dev pod nodad
    ip route add 10.7.0.2/32 dev pod; ip -6 route add fd00:7::2/128 dev pod
    ip route add 10.7.0.3/32 dev near
    ip addr add 192.0.2.1/24 dev far; ip -6 addr add 2001:db8::1/64 dev far nodad
    pod() {{ nsenter -t {pod} -n ip "$@"; }}
    pod addr add 10.7.0.2/32 dev eth0; pod -6 addr add fd00:7::2/128 dev eth0 nodad
    pod route add 10.7.0.1/32 dev eth0; pod route add default via 10.7.0.1
    pod -6 route add fd00:7::1/128 dev eth0; pod -6 route add default via fd00:7::1
    near() {{ nsenter -t {neighbour} -n ip "$@"; }}
    near addr add 10.7.0.3/32 dev eth0
    near route add 10.7.0.1/32 dev eth0; near route add default via 10.7.0.1
    far() {{ nsenter -t {outside} -n ip "$@"; }}
    far addr add 192.0.2.2/24 dev eth0; far -6 addr add 2001:db8::2/64 dev eth0 nodad
    """)
    spawn_inside(neighbour, lambda: serve_udp("10.7.0.3"))
    spawn_inside(outside, lambda: serve_udp("192.0.2.2"))
    spawn_inside(outside, lambda: serve_udp("2001:db8::2"))
    return pod, neighbour, outside


@private
def test_traffic_leaves_with_the_node_s_address(kind: str, tmp_path: Path) -> None:
    backend, environ = backend_of(kind, tmp_path)
    pod, _, _ = wire_up()
    assert inside(pod, lambda: seen_by("10.7.0.3")) == "10.7.0.2"
    assert inside(pod, lambda: seen_by("192.0.2.2")) == ""
    masq.setup(backend, "net", "cid", "eth0", PREFIXES, environ)
    assert inside(pod, lambda: seen_by("192.0.2.2")) == "192.0.2.1"
    assert inside(pod, lambda: seen_by("2001:db8::2")) == "2001:db8::1"
    assert inside(pod, lambda: seen_by("10.7.0.3")) == "10.7.0.2"  # its own subnet: untouched
    masq.teardown("net", "cid", "eth0", environ)
    assert inside(pod, lambda: seen_by("192.0.2.2")) == ""


# ------------------------------------------------------------------ beside the Go bridge plugin


def go(command: str, pod: int, data_dir: Path) -> None:
    conf = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "bridge",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(data_dir),
            "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]],
        },
    }
    (data_dir / "conf").write_text(json.dumps(conf))
    sh(
        f"{GO_BRIDGE} < {data_dir}/conf",
        CNI_COMMAND=command,
        CNI_CONTAINERID="cid",
        CNI_IFNAME="eth0",
        CNI_NETNS=f"/proc/{pod}/ns/net",
        CNI_PATH="/usr/lib/cni",
    )


@needs_go
@private
def test_our_rules_are_go_s_and_each_removes_the_other_s(tmp_path: Path) -> None:
    pod = new_pod()
    go("ADD", pod, tmp_path)
    theirs = saved()
    assert masq.verify(None, "net", "cid", "eth0", PREFIXES, ENVIRON) == []
    masq.setup(None, "net", "cid", "eth0", PREFIXES, ENVIRON)
    assert saved() == theirs
    masq.teardown("net", "cid", "eth0", ENVIRON)
    assert saved() == []
    masq.setup(None, "net", "cid", "eth0", PREFIXES, ENVIRON)
    assert saved() == theirs
    go("DEL", pod, tmp_path)
    assert saved() == []


@needs_go
@private
def test_go_adds_over_ours_and_gc_finds_go_s(tmp_path: Path) -> None:
    pod = new_pod()
    masq.setup(None, "net", "cid", "eth0", PREFIXES, ENVIRON)
    ours = saved()
    go("ADD", pod, tmp_path)
    assert saved() == ours
    masq.collect("net", [("cid", "eth0")], ENVIRON)
    assert saved() == ours
    masq.collect("net", [], ENVIRON)
    assert saved() == []
