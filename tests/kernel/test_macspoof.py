"""macspoofchk in the kernel: the rules, frames with a foreign MAC, Go's plugin before and after."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from cni import process
from cni.errors import INVALID_ENVIRONMENT, CNIError
from cni_flannel.kernel import macspoof
from tests.kernel.privatens import inside, needs_root, new_pod, private, sh

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, needs_root]

ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
GO_BRIDGE = "/usr/lib/cni/bridge"
MAC = "02:00:00:00:00:0a"

needs_go = pytest.mark.skipif(not os.path.exists(GO_BRIDGE), reason=f"no {GO_BRIDGE}")


def table() -> list[str]:
    listed = sh("nft list table bridge nat 2>&1 || true")
    return [line.strip() for line in listed.splitlines() if line.strip() not in {"", "}"}]


EMPTY = [
    "table bridge nat {",
    "chain PREROUTING {",
    "type filter hook prerouting priority dstnat; policy accept;",
]


@private
def test_the_rules_are_the_documented_ones() -> None:
    macspoof.setup("veth1", MAC.upper(), "cid", "eth0", ENVIRON)
    assert table() == [
        *EMPTY,
        'iifname "veth1" jump cni-br-iface-cid-eth0 comment "macspoofchk-cid-eth0"',
        "chain cni-br-iface-cid-eth0 {",
        'jump cni-br-iface-cid-eth0-mac comment "macspoofchk-cid-eth0"',
        "chain cni-br-iface-cid-eth0-mac {",
        f'ether saddr {MAC} return comment "macspoofchk-cid-eth0"',
        'drop comment "macspoofchk-cid-eth0"',
    ]


@private
@pytest.mark.parametrize("ifname", ["eth0", "e-@!$", "ünï"])
def test_setup_again_and_teardown(ifname: str) -> None:
    macspoof.setup("veth1", MAC, "cid", ifname, ENVIRON)
    once = table()
    macspoof.setup("veth1", MAC, "cid", ifname, ENVIRON)
    assert table() == once
    assert macspoof.verify("veth1", MAC, "cid", ifname, ENVIRON) == []
    macspoof.setup("veth2", MAC, "cid", "net1", ENVIRON)
    macspoof.setup("veth3", "02:00:00:00:00:0b", "cid", ifname, ENVIRON)  # a new attempt
    assert macspoof.verify("veth3", "02:00:00:00:00:0b", "cid", ifname, ENVIRON) == []
    assert len(macspoof.verify("veth1", MAC, "cid", ifname, ENVIRON)) == 2
    macspoof.teardown("cid", ifname, ENVIRON)
    macspoof.teardown("cid", ifname, ENVIRON)
    assert macspoof.verify("veth2", MAC, "cid", "net1", ENVIRON) == []
    macspoof.teardown("cid", "net1", ENVIRON)
    assert table() == EMPTY


@private
def test_half_of_the_rules_goes_too() -> None:
    sh("nft add table bridge nat; nft add chain bridge nat cni-br-iface-cid-eth0-mac")
    macspoof.teardown("cid", "eth0", ENVIRON)
    assert table() == ["table bridge nat {"]


@private
def test_nothing_to_take_away_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(argv: list[str], **_: object) -> None:
        raise AssertionError(argv)

    monkeypatch.setattr(process, "run", refuse)
    macspoof.teardown("cid", "eth0", ENVIRON)


@private
def test_a_name_too_long_for_a_chain_is_refused() -> None:
    macspoof.setup("veth1", MAC, "c" * 105, "eth0", ENVIRON)
    with pytest.raises(CNIError, match="too long") as caught:
        macspoof.setup("veth1", MAC, "c" * 106, "eth0", ENVIRON)
    assert caught.value.code == INVALID_ENVIRONMENT


def send(source: str) -> None:
    """Send one broadcast frame of the experimental ethertype from eth0 with this MAC."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(("eth0", 0))
    raw.send(b"\xff" * 6 + bytes.fromhex(source.replace(":", "")) + b"\x88\xb5" + b"\0" * 46)


@private
def test_a_frame_with_a_foreign_mac_does_not_pass() -> None:
    pod = new_pod()
    sh(f"""
    ip link add cni0 type bridge; ip link set cni0 up
    ip link add veth1 master cni0 type veth peer name eth0 address {MAC} netns {pod}
    ip link set veth1 up; nsenter -t {pod} -n ip link set eth0 up
    until bridge link show dev veth1 | grep -q 'state forwarding'; do sleep 0.01; done
    """)
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x88B5))
    listener.bind(("cni0", 0x88B5))

    def passes(mac: str, patience_s: float = 5.0) -> bool:
        listener.settimeout(patience_s)
        inside(pod, lambda: send(mac))
        try:
            listener.recv(100)
        except TimeoutError:
            return False
        return True

    foreign = "02:00:00:00:00:99"
    assert passes(MAC)
    assert passes(foreign)
    macspoof.setup("veth1", MAC, "cid", "eth0", ENVIRON)
    assert passes(MAC)
    assert not passes(foreign, 0.3)
    macspoof.teardown("cid", "eth0", ENVIRON)
    assert passes(foreign)


def go(command: str, pod: int, folder: Path) -> str:
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "macspoofchk": True, "ipam": {}}
    (folder / "conf").write_text(json.dumps(conf))
    return sh(
        f"{GO_BRIDGE} < {folder}/conf",
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
    interfaces = json.loads(go("ADD", pod, tmp_path))["interfaces"]
    host_ifname, mac = interfaces[1]["name"], interfaces[2]["mac"]
    theirs = table()
    assert macspoof.verify(host_ifname, mac, "cid", "eth0", ENVIRON) == []
    macspoof.teardown("cid", "eth0", ENVIRON)
    assert table() == EMPTY
    macspoof.setup(host_ifname, mac, "cid", "eth0", ENVIRON)
    assert table() == theirs
    go("DEL", pod, tmp_path)
    assert table() == EMPTY
