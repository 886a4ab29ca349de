"""host-local as a program, beside Go's: the same bytes for the same conf."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GO = Path("/usr/lib/cni/host-local")
OURS = [sys.executable, "-m", "ipam"]

needs_go = pytest.mark.skipif(
    not GO.exists(), reason="needs the package containernetworking-plugins"
)


def run(argv: list[Any], verb: str, conf: dict[str, Any]) -> tuple[int, str]:
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/dev/null",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    }
    done = subprocess.run(
        argv, input=json.dumps(conf).encode(), env=env, cwd=ROOT, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode()


def conf_in(base: Path, version: str, **ipam: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": str(base), **ipam}
    return {"cniVersion": version, "name": "net", "ipam": ipam}


@needs_go
@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_results_are_gos_bytes(tmp_path: Path, version: str) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 10.0.0.10\nsearch a b\noptions ndots:5\n")
    ipam = {
        "ranges": [[{"subnet": "10.5.0.0/24", "gateway": "10.5.0.254"}], [{"subnet": "fd00::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "fd01::/16", "gw": "fd00::9"}],
        "resolvConf": str(resolv),
    }
    ours = run(OURS, "ADD", conf_in(tmp_path / "ours", version, **ipam))
    gos = run([GO], "ADD", conf_in(tmp_path / "go", version, **ipam))
    if version == "1.0.0":  # later releases than Debian's sort the keys
        assert (ours[0], json.loads(ours[1])) == (gos[0], json.loads(gos[1]))
    else:
        assert ours == gos
    for name in ("10.5.0.1", "fd00::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"):
        files = [tmp_path / who / "net" / name for who in ("ours", "go")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert run(OURS, "DEL", conf_in(tmp_path / "go", version, **ipam)) == (0, "")
    assert run([GO], "DEL", conf_in(tmp_path / "ours", version, **ipam)) == (0, "")


@pytest.mark.parametrize("verb", ["CHECK", "STATUS", "GC", "DEL"])
def test_every_verb(tmp_path: Path, verb: str) -> None:
    conf = conf_in(tmp_path, "1.1.0", ranges=[[{"subnet": "10.5.0.0/24"}]])
    assert run(OURS, "ADD", conf)[0] == 0
    assert run(OURS, verb, conf) == (0, "")


def test_an_error_is_one_document(tmp_path: Path) -> None:
    status, text = run(OURS, "ADD", conf_in(tmp_path, "1.1.0", ranges="x"))
    assert status == 1
    assert json.loads(text)["code"] == 7
