"""The pair brings its loader and its C library: it works in a root that has none, or another."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import CONF, call, conf_with, leases
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from tests.kernel.conftest import Node, Outcome

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(600)]

MUSL = ["/lib/ld-musl-x86_64.so.1", "/lib/x86_64-linux-musl/libc.so", "/bin/busybox"]
MOUNTS = """
for folder in proc dev run var/lib tmp; do mkdir -p /run/root/$folder; done
mount --rbind /proc /run/root/proc
mount --rbind /run/netns /run/root/run/netns
[ -e /run/root/dev/null ] || mknod -m 666 /run/root/dev/null c 1 3
exec chroot /run/root "$@"
"""


@pytest.fixture
def root(node: Node, plugins: Path) -> Path:
    """A root with the pair in /opt/cni/bin and nothing else, as it is seen from here."""
    built = (plugins / "flannel").resolve().parent
    if not (built / ".cni-flannel").exists():
        pytest.skip("the plugins under test are not frozen")
    node.write_subnet_env()
    node.add_pod("a")
    inside = node.path("/run/root")
    shutil.copytree(built, inside / "opt/cni/bin", symlinks=True)
    (inside / "run/netns").mkdir(parents=True)
    shutil.copytree(node.path("/run/flannel"), inside / "run/flannel")
    return inside


def put(root: Path, files: list[str]) -> None:
    """Copy files of this machine to the same places."""
    for file in files:
        if not Path(file).exists():
            pytest.skip(f"no {file} here")
        target = root / file.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def inside(node: Node, command: str, conf: dict[str, Any], program: str = "flannel") -> Outcome:
    environ = {
        **node.environment(command, "c1", "eth0", "/run/netns/a"),
        "CNI_PATH": "/opt/cni/bin",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", MOUNTS, "sh"]
    return node.run([*argv, f"/opt/cni/bin/{program}"], json.dumps(conf), environ, check=False)


@pytest.mark.parametrize("others", [[], MUSL], ids=["nothing", "musl"])
def test_a_pod_lives_in_a_root_without_our_libraries(
    node: Node, root: Path, others: list[str]
) -> None:
    put(root, others)
    for program in ("flannel", "host-local"):
        assert "1.1.0" in inside(node, "VERSION", {}, program).result["supportedVersions"]
    result = inside(node, "ADD", CONF).result
    address = result["ips"][0]["address"]
    assert address in node.addresses(pod="a")["eth0"]
    conf = {**CONF, "prevResult": result}
    assert inside(node, "CHECK", conf).status == 0
    assert inside(node, "STATUS", CONF).status == 0
    assert inside(node, "DEL", conf).status == 0
    assert [name for name in node.links() if name.startswith("veth")] == []
    assert not list((root / "var/lib/cni/networks/cbr0").glob("10.*"))


def test_network_programs_of_the_root_keep_their_own_library(node: Node, root: Path) -> None:
    """`nft` with the C library that it was built for, which is not ours there."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    assert nft is not None
    listed = subprocess.run(["ldd", nft], capture_output=True, text=True, check=True).stdout
    put(root, [nft, *(word for word in listed.split() if word.startswith("/"))])
    conf = conf_with(delegate={"ipMasq": True, "ipMasqBackend": "nftables"})
    result = inside(node, "ADD", conf).result
    assert result["ips"]
    address = result["ips"][0]["address"].partition("/")[0]
    assert address in node.run(["nft", "list", "ruleset"]).stdout
    assert inside(node, "DEL", conf).status == 0
    assert address not in node.run(["nft", "list", "ruleset"]).stdout


def test_what_is_outside_is_as_before(node: Node, root: Path) -> None:
    """The same pod, by the pair of the machine itself: nothing of the above depends on the root."""
    assert root.exists()
    assert call(node, "ADD", "a").result
    assert len(leases(node)) == 1
