"""What the daemon says when its store refuses it: one sentence, and nothing of a library's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.flanneld.etcdserver import free_port
from tests.flanneld.scene import PATIENCE_S, ROOT, Scene, eventually, program
from tests.flanneld.test_etcd_access import LOGIN, guarded, pki, secure, tls
from tests.kernel.privatens import needs_root, private, sh

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.flanneld.etcdserver import EtcdServer

__all__ = ["guarded", "pki", "secure"]
pytestmark = pytest.mark.timeout(300)

OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) .*")
LIBRARIES = re.compile(r"TSI_|SSL_|grpc|KV\.Range|StoreError|Traceback|Task was|\b1[0-9]{9}\.")


def assert_ours(log: str) -> None:
    for line in log.splitlines():
        assert OURS.fullmatch(line), line
        assert not LIBRARIES.search(line), line


def said(folder: Path, *flags: str) -> str:
    """Run the daemon until it says what it waits for, and end it; its log."""
    files = ("--subnet-file", str(folder / "subnet.env"), "--data-dir", str(folder))
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *program(), *files, *flags], stderr=file, cwd=ROOT
        )
    eventually("it says so", lambda: "problem: " in log.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    return log.read_text()


def endpoints(server: EtcdServer) -> tuple[str, str]:
    return ("--etcd-endpoints", server.url)


def test_a_certificate_that_is_refused(secure: EtcdServer, pki: Path, tmp_path: Path) -> None:
    log = said(tmp_path, *endpoints(secure), *tls(pki, "stranger"))
    assert "etcd refuses: https://" in log
    assert "it refuses this client's certificate, or wants one: --etcd-certfile" in log
    assert_ours(log)


def test_a_password_that_is_wrong(guarded: EtcdServer, tmp_path: Path) -> None:
    login = ("--etcd-username", "flannel", "--etcd-password", "wrong")
    log = said(tmp_path, *endpoints(guarded), *login)
    assert "it refuses the user or the password (authentication failed)" in log
    assert "wrong" not in log
    assert_ours(log)


def test_a_right_that_is_missing(guarded: EtcdServer, tmp_path: Path) -> None:
    log = said(tmp_path, *endpoints(guarded), *LOGIN, "--etcd-prefix", "/elsewhere")
    assert "the user may not do that (permission denied)" in log
    assert "secret" not in log
    assert_ours(log)


@needs_root
@private
def test_a_host_that_is_not_reached(tmp_path: Path) -> None:
    sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up")
    sh("ip address add 192.0.2.1/24 dev eth0")
    for url, words in (
        ("http://192.0.2.9:2379", "the host is not reached"),
        ("http://198.51.100.1:2379", "the host is not reached (network is unreachable)"),
        (f"http://127.0.0.1:{free_port()}", "nothing listens there (connection refused)"),
    ):
        log = said(tmp_path, "--etcd-endpoints", url)
        assert f"etcd does not answer: {url}: {words}" in log or "no answer in 5 s" in log
        assert_ours(log)


def test_a_configuration_that_is_wrong_names_its_key(
    new_etcd: Callable[..., EtcdServer], tmp_path: Path
) -> None:
    etcd = new_etcd()
    etcd.put("config", '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": -1}}')
    files = ("--subnet-file", str(tmp_path / "subnet.env"), "--data-dir", str(tmp_path))
    argv = [*program(), *files, *endpoints(etcd)]
    environ = {**os.environ, "FLANNELD_IPMASQ": "true"}
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 2
    last = next(line for line in done.stderr.splitlines() if line.startswith("flanneld: "))
    assert last.startswith("flanneld: key /coreos.com/network/config of etcd at http://127.0.0.1:")
    assert "VNI must be a whole number" in last
    assert "FLANNELD_IPMASQ is no flag's, and is ignored: is FLANNELD_IP_MASQ meant?" in done.stderr


@needs_root
@private
def test_nothing_of_a_library_s_in_a_bad_day(tmp_path: Path) -> None:
    """An outage, drift without end, a lease that is lost: few lines, all of them ours."""
    scene = Scene(tmp_path, 2)
    scene.start()
    one, two = scene.nodes
    before = len(one.log.splitlines())
    for _ in range(40):
        one.sh("ip route flush proto 244")
        eventually("it is back", lambda: f"{two.base}/24" in one.routes())
    scene.etcd.stop()
    words = "what other nodes change is not seen at present"
    eventually("the outage is noticed", lambda: words in one.log)
    scene.etcd.start()
    eventually("and its end", lambda: f"solved: {words}" in one.log)
    lines = one.log.splitlines()[before:]
    assert f"drift repaired: + route {two.base}/24 via {two.base} dev flannel.1 onlink" in one.log
    assert len(lines) <= 20, lines
    scene.etcd.delete(f"subnets/{one.base}-24")
    assert one.status() == 1
    assert_ours(one.log)
