"""What the daemon writes and reads: subnet.env, the MACs, its state, log lines."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

import pytest

from flanneld import config, files, identity, logs, options, record, state, subnet_env
from flanneld.backend.base import External, Identity
from flanneld.commands import cleanup
from flanneld.lease import Attributes, Lease
from flanneld.readiness import Cause
from ipam import subnet_env as plugins_reader

if TYPE_CHECKING:
    from pathlib import Path

V4 = config.parse('{"Network":"10.244.0.0/16"}')
V6 = config.parse('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56"}')
BOTH = config.parse(
    '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56"}'
)
LEASE4 = Lease(IPv4Network("10.244.1.0/24"), None)
LEASE6 = Lease(None, IPv6Network("2001:cafe:42:1::/64"))
LEASE = Lease(LEASE4.subnet, LEASE6.subnet6)
EXTERNAL = External("eth0", 2, 1500, IPv4Address("192.0.2.1"), public_ip=IPv4Address("192.0.2.1"))
NAMES = ("flannel.1", "flannel-v6.1")


class TestSubnetEnv:
    @pytest.mark.parametrize(
        ("conf", "lease", "text"),
        [
            (
                V4,
                LEASE4,
                (
                    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
                    "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
                ),
            ),
            (
                V6,
                LEASE6,
                (
                    "FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n"
                    "FLANNEL_IPV6_SUBNET=2001:cafe:42:1::1/64\n"
                    "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
                ),
            ),
            (
                BOTH,
                LEASE,
                (
                    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
                    "FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n"
                    "FLANNEL_IPV6_SUBNET=2001:cafe:42:1::1/64\n"
                    "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
                ),
            ),
        ],
    )
    def test_lines(self, tmp_path: Path, conf: config.NetConf, lease: Lease, text: str) -> None:
        path = str(tmp_path / "run" / "subnet.env")
        assert subnet_env.render(conf, lease, 1450, ip_masq=True) == text
        assert subnet_env.write(path, text)
        assert not subnet_env.write(path, text)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
        assert subnet_env.previous(path).lease == lease
        networks = {net for net in (conf.network, conf.network6) if net is not None}
        assert set(subnet_env.previous(path).networks) == networks
        assert os.listdir(tmp_path / "run") == ["subnet.env"]
        read = plugins_reader.load(path)
        assert (read.mtu, read.ip_masq) == (1450, True)

    def test_an_existing_mode_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "subnet.env"
        path.write_text("old")
        path.chmod(0o600)
        subnet_env.write(str(path), "new")
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)

    @pytest.mark.parametrize("text", ["", "nonsense", "FLANNEL_SUBNET=", "FLANNEL_SUBNET=x/y"])
    def test_what_an_earlier_run_left_unreadable(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "subnet.env").write_text(text)
        assert subnet_env.previous(str(tmp_path / "subnet.env")) == subnet_env.Previous()

    def test_none_left(self, tmp_path: Path) -> None:
        assert subnet_env.previous(str(tmp_path / "subnet.env")) == subnet_env.Previous()


class TestFiles:
    def test_what_cannot_be_read_is_not_absent(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        assert files.read(str(tmp_path / "none")) is None
        with pytest.raises(OSError, match="Too many levels"):
            files.read(str(tmp_path / "loop"))

    def test_a_failed_write_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file"
        path.write_text("old")

        def full(_fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            files.write(str(path), b"new")
        assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["file"])

    def test_a_lock_is_one_process_s(self, tmp_path: Path) -> None:
        path = str(tmp_path / "run" / "lock")
        with files.lock(path), pytest.raises(files.Locked, match=path):
            files.lock(path)
        files.lock(path).close()

    def test_to_ask_for_a_lock_is_not_to_take_it(self, tmp_path: Path) -> None:
        path = str(tmp_path / "lock")
        assert not files.is_locked(path)
        assert not (tmp_path / "lock").exists()
        with files.lock(path):
            assert files.is_locked(path)
            assert files.is_locked(path)
        assert not files.is_locked(path)

    def test_a_lock_dies_with_its_holder(self, tmp_path: Path) -> None:
        path = str(tmp_path / "lock")
        code = (
            f"from flanneld import files\nf = files.lock({path!r})\nprint(1, flush=True)\ninput()"
        )
        argv = [sys.executable, "-c", code]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"1\n"
            assert files.is_locked(path)
            holder.kill()
        assert not files.is_locked(path)


class TestIdentity:
    def test_order(self) -> None:
        told = Attributes(backend_data={"VNI": 1, "VtepMAC": "02:00:00:00:00:0C"})
        published = Identity(*told.vteps)
        kept = Identity("02:00:00:00:00:0b")
        existing = {"flannel.1": "02:00:00:00:00:0a"}
        assert identity.resolve(NAMES, existing, kept, published).mac == "02:00:00:00:00:0a"
        assert identity.resolve(NAMES, {}, kept, published).mac == "02:00:00:00:00:0b"
        assert identity.resolve(NAMES, {}, Identity(), published).mac == "02:00:00:00:00:0c"

    def test_drawn_macs_are_local_and_unicast(self) -> None:
        drawn = [identity.resolve(NAMES, {}, Identity(), Identity()) for _ in range(50)]
        macs = {mac for one in drawn for mac in (one.mac, one.mac6)}
        assert len(macs) == 100
        assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)

    def test_the_file_is_this_node_s_alone(self, tmp_path: Path) -> None:
        macs = Identity("02:00:00:00:00:0a", "02:00:00:00:00:0b")
        identity.save(str(tmp_path), NAMES, EXTERNAL, macs)
        assert identity.load(str(tmp_path), NAMES, EXTERNAL) == macs
        cloned = replace(EXTERNAL, public_ip=IPv4Address("192.0.2.2"))
        assert identity.load(str(tmp_path), NAMES, cloned) == Identity()

    @pytest.mark.parametrize("content", [b"", b"x", b"02:00:00:00:00", b"\xff" * 9, b"[" * 2000])
    def test_what_is_no_mac_in_the_file_is_none(self, tmp_path: Path, content: bytes) -> None:
        identity.save(str(tmp_path), NAMES, EXTERNAL, Identity("02:00:00:00:00:0a"))
        (path,) = (tmp_path / "mac").glob("flannel.1@*")
        path.write_bytes(content)
        assert identity.load(str(tmp_path), NAMES, EXTERNAL).mac == ""

    @pytest.mark.parametrize("published", ["x", 7, None, "02:00:00:00:00", ""])
    def test_what_is_no_mac_is_none(self, tmp_path: Path, published: object) -> None:
        stored = Identity(*Attributes(backend_data={"VtepMAC": published}).vteps)
        kept = identity.load(str(tmp_path), NAMES, EXTERNAL)
        mac = identity.resolve(NAMES, {}, kept, stored).mac
        assert mac != published
        assert len(mac) == 17


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    wanted = options.read(["--subnet-file", str(tmp_path / "subnet.env"), "--ip-masq"], {})
    before = state.State(
        pid=7,
        version="1.2",
        written=1.5,
        conf=BOTH,
        settings=state.settings(wanted),
        external=replace(
            EXTERNAL,
            address6=IPv6Address("fd01::1"),
            onlink=(ip_network("192.0.2.0/24"), ip_network("fd01::/64")),
            local=(IPv4Address("192.0.2.1"), IPv6Address("fd01::1")),
            reserved=(ip_network("10.244.9.0/24"), ip_network("fd44::/64")),
        ),
        identity=Identity("02:00:00:00:00:0a"),
        lease=replace(LEASE, attributes=Attributes(IPv4Address("192.0.2.1")), expires=9.5),
        peers=(
            Lease(
                IPv4Network("10.244.2.0/24"),
                IPv6Network("2001:cafe:42:2::/64"),
                Attributes(IPv4Address("192.0.2.2"), None, "vxlan", {"VNI": 1}),
            ),
        ),
        ready=True,
        causes=(Cause("peers", "one", 1.0, blocks=True),),
    )
    state.save(before)
    assert state.load(wanted.subnet_file) == before
    assert sorted(os.listdir(tmp_path)) == ["subnet.state.json"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b'{"pid":1}'])
def test_a_state_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "subnet.state.json").write_bytes(content)
    with pytest.raises(state.StateError, match=r"subnet\.state\.json"):
        state.load(str(tmp_path / "subnet.env"))


def test_log_lines() -> None:
    record = logging.makeLogRecord(
        {
            "msg": "lease %s",
            "args": ("acquired",),
            "levelname": "INFO",
            "created": 0.0,
            "msecs": 7.0,
            "lease": "10.244.1.0-24",
            "cause": 'no "leader" = 7',
            "empty": "",
        }
    )
    assert logs.Formatter().format(record) == (
        "1970-01-01T00:00:00.007Z info lease acquired "
        'lease=10.244.1.0-24 cause="no \\"leader\\" = 7" empty=""'
    )


def test_words_of_several_lines_are_one_line() -> None:
    said = "write rules: line 3 failed\nTry `iptables-restore -h'\r\n"
    record = logging.makeLogRecord({"msg": said, "levelname": "ERROR", "created": 0, "msecs": 0})
    assert logs.Formatter().format(record) == (
        "1970-01-01T00:00:00.000Z error write rules: line 3 failed | Try `iptables-restore -h'"
    )


def test_a_cleanup_leaves_nothing_that_a_daemon_keeps(tmp_path: Path) -> None:
    subnet_file = str(tmp_path / "subnet.env")
    for kind in ("last", "kube"):
        kept = record.path(str(tmp_path / "data"), subnet_file, kind)
        files.write(kept, b"{}")
        assert kept in set(cleanup._files(subnet_file, str(tmp_path / "data")))
