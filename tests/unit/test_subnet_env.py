"""subnet.env: what is read, what is refused with file, line and value, and the wait for it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cni.errors import CNIError
from ipam.daemon import likely_reason
from ipam.subnet_env import load, parse

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
V6 = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00:0:0:1::1/64\n"


def test_good() -> None:
    env = parse(GOOD, "f")
    assert [str(one) for one in env.networks] == ["10.244.0.0/16"]
    assert str(env.subnet) == "10.244.1.0/24"
    assert (env.ipv6_networks, env.ipv6_subnet) == ([], None)
    assert (env.mtu, env.ip_masq, env.path) == (1450, True, "f")


def test_dual_stack_and_several_networks() -> None:
    text = GOOD.replace("10.244.0.0/16", "10.244.0.0/16,10.0.0.5/8,10.244.0.0/16") + V6
    env = parse(text, "f")
    assert [str(one) for one in env.networks] == ["10.244.0.0/16", "10.0.0.0/8"]
    assert str(env.ipv6_subnet) == "fc00:0:0:1::/64"


def test_ipv6_only() -> None:
    env = parse(V6 + "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false", "f")
    assert (env.networks, env.subnet, env.ip_masq) == ([], None, False)


def test_skipped_lines() -> None:
    text = "\n# a comment\n  \nOTHER=x\n# FLANNEL_MTU=9\nFLANNEL_MTU=9\n" + GOOD.replace(
        "\n", "\r\n"
    )
    assert parse(text, "f").mtu == 1450


LINE = "failed to load flannel 'subnet.env' file: f:"
REFUSED = [
    ("FLANNEL_NETWORK", LINE + "1: line \"FLANNEL_NETWORK\" has no '='"),
    ("FLANNEL_NETWORK=", LINE + '1: FLANNEL_NETWORK "" is wrong: invalid CIDR address: '),
    (
        "FLANNEL_SUBNET=10.244.1.1",
        LINE + '2: FLANNEL_SUBNET "10.244.1.1" is wrong: invalid CIDR address: 10.244.1.1',
    ),
    (
        "FLANNEL_SUBNET=10.9.1.1/24",
        LINE + '2: FLANNEL_SUBNET "10.9.1.1/24" lies outside the network 10.244.0.0/16',
    ),
    (
        "FLANNEL_SUBNET=10.0.0.0/8",
        LINE + '2: FLANNEL_SUBNET "10.0.0.0/8" lies outside the network 10.244.0.0/16',
    ),
    (
        "FLANNEL_SUBNET=fc00::1/64",
        LINE + '2: FLANNEL_SUBNET "fc00::1/64" holds fc00::1/64, which is not IPv4',
    ),
    ("FLANNEL_MTU=0", LINE + '3: FLANNEL_MTU "0" is not between 1 and 65535'),
    ("FLANNEL_MTU=65536", LINE + '3: FLANNEL_MTU "65536" is not between 1 and 65535'),
    ("FLANNEL_MTU=1450 ", LINE + '3: FLANNEL_MTU "1450 " is not a number'),
    ("FLANNEL_MTU=-1", LINE + '3: FLANNEL_MTU "-1" is not a number'),
    ("FLANNEL_IPMASQ=TRUE", LINE + '4: FLANNEL_IPMASQ "TRUE" is neither true nor false'),
    ('FLANNEL_IPMASQ="true"', LINE + '4: FLANNEL_IPMASQ "\\"true\\"" is neither true nor false'),
]


@pytest.mark.parametrize(("line", "msg"), REFUSED, ids=[case[0] for case in REFUSED])
def test_wrong_line(line: str, msg: str) -> None:
    key = line.partition("=")[0]
    text = "\n".join(line if good.startswith(key + "=") else good for good in GOOD.splitlines())
    with pytest.raises(CNIError) as caught:
        parse(text, "f")
    assert (caught.value.code, caught.value.msg) == (7, msg)


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        (
            V6 + GOOD.replace("FLANNEL_SUBNET=10.244.1.1/24\n", ""),
            "has no FLANNEL_SUBNET beside it",
        ),
        (GOOD + "FLANNEL_IPV6_SUBNET=fc00::1/64\n", "has no FLANNEL_IPV6_NETWORK beside it"),
    ],
)
def test_families_that_do_not_fit(text: str, needle: str) -> None:
    with pytest.raises(CNIError, match=needle) as caught:
        parse(text, "f")
    assert caught.value.code == 7


def test_missing_keys_as_go_says_it() -> None:
    with pytest.raises(CNIError) as caught:
        parse("", "f")
    assert (
        "f is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, "
        "FLANNEL_MTU, FLANNEL_IPMASQ" in caught.value.msg
    )
    with pytest.raises(CNIError, match="f is missing FLANNEL_MTU; "):
        parse(GOOD.replace("FLANNEL_MTU", "export FLANNEL_MTU"), "f")


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none" / "subnet.env"
    with pytest.raises(CNIError) as caught:
        load(str(path), 0.0)
    assert caught.value.code == 11
    assert caught.value.msg == (
        f"failed to load flannel 'subnet.env' file: open {path}: no such file or directory. "
        "Check the flannel pod log for this node."
    )
    assert "flanneld" in caught.value.details


def test_waits_for_the_file(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"

    def write() -> None:
        time.sleep(0.1)
        half = tmp_path / "subnet.env.tmp"
        half.write_text(GOOD)
        half.rename(path)

    writer = threading.Thread(target=write)
    writer.start()
    assert load(str(path), 20.0).mtu == 1450
    writer.join()


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(CNIError, match="is a directory") as caught:
        load(str(tmp_path), 0.0)
    assert caught.value.code == 5


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_bytes(b"FLANNEL_MTU=\xff\n")
    with pytest.raises(CNIError) as caught:
        load(str(path), 0.0)
    assert caught.value.code == 7


def test_likely_reason(tmp_path: Path) -> None:
    for process in ("77", "self"):
        (tmp_path / "proc" / process / "ns").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "ns" / "net").write_text("")
    other = tmp_path / "proc" / "77" / "ns" / "net"
    other.write_text("")
    (tmp_path / "net").mkdir()
    comm = tmp_path / "proc" / "77" / "comm"
    comm.write_text("sh\n")
    path = str(tmp_path / "run" / "subnet.env")

    def reason() -> str:
        return likely_reason(path, str(tmp_path / "proc"), str(tmp_path / "net"))

    assert "does not exist" in reason()
    (tmp_path / "run").mkdir()
    assert reason().startswith("flanneld is not running on this node")
    (tmp_path / "net" / "flannel.1").mkdir()
    assert "flannel.1 exists" in reason()
    comm.write_text("flanneld\n")
    assert "flannel.1 exists" in reason()  # that is another node's
    other.unlink()
    os.link(tmp_path / "proc" / "self" / "ns" / "net", other)
    assert "flanneld runs (process 77)" in reason()
