"""What README and docs/troubleshooting.md tell a person to type: it works, and harms nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.attachments import CONF, call
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = ROOT / "packaging" / "sandbox.sh"
PAGES = {page: (ROOT / page).read_text() for page in ("README.md", "docs/troubleshooting.md")}


def snippet(page: str, name: str) -> str:
    """The block between the marks of a name."""
    marked = (
        PAGES[page].partition(f"<!-- {name}:begin -->\n")[2].partition(f"<!-- {name}:end -->")[0]
    )
    lines = marked.strip().splitlines()
    assert lines[0].startswith("```")
    assert lines[-1] == "```"
    return "\n".join(lines[1:-1])


@pytest.fixture(autouse=True)
def _built() -> None:
    if not (ROOT / "dist" / "cni-flannel" / "flannel").exists():
        pytest.skip("dist/cni-flannel is not built: run ./build.sh")


def in_sandbox(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SANDBOX], input=script, capture_output=True, text=True, check=False, cwd="/"
    )


def test_by_hand() -> None:
    done = in_sandbox(
        f"set -e\n{snippet('README.md', 'by-hand')}\necho end; ip netns; ls /var/lib/cni"
    )
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("ready\n", '"address": "10.244.1.2/24"', " 0% packet loss", "as it should be\n"):
        assert text in done.stdout
    assert {"blue", "green"} <= set(done.stdout.partition("end\n")[2].split())


def plain(step: str) -> str:
    """A step without what differs from pod to pod."""
    step = re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", step)
    return re.sub(r"veth[0-9a-f]{8}", "VETH", step)


def test_the_debug_setting() -> None:
    done = in_sandbox('CNI_FLANNEL_DEBUG=1 CNI_COMMAND=ADD flannel <"$CONF"')
    assert done.returncode == 0
    told = [plain(line) for line in done.stderr.splitlines()]
    shown = snippet("README.md", "debug").splitlines()
    assert [f"# {line}" for line in told] == [plain(line) for line in shown]


def test_cnitool(tmp_path: Path) -> None:
    """The calls that a cnitool of libcni makes, as far as it is there: else what it is given."""
    tool = shutil.which("cnitool")
    if tool is None:
        (tmp_path / "cnitool").write_text(
            '#!/bin/sh\n[ $# = 3 ] && [ -e "$3" ] && cat $NETCONFPATH/*\n'
        )
        (tmp_path / "cnitool").chmod(0o755)
    done = in_sandbox(f"PATH=$PATH:{tmp_path}; set -e\n{snippet('README.md', 'cnitool')}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("cbr0") >= 1


EVERYWHERE = [
    ("README.md", "by-hand"),
    ("README.md", "cnitool"),
    ("docs/troubleshooting.md", "leases"),
    ("docs/troubleshooting.md", "bridge"),
]


@pytest.mark.parametrize(("page", "name"), EVERYWHERE)
def test_pasted_outside_of_the_sandbox_nothing_happens(node: Node, page: str, name: str) -> None:
    """On a node with a pod of its own: mounts, links, leases and files are as before."""
    node.write_subnet_env()
    node.add_pod("blue")
    assert call(node, "ADD", "blue", conf=CONF).result
    look = "cat /proc/self/mounts; ip link; ip route; ip netns; find /run /var/lib /etc/cni | sort"
    before = node.run(["sh", "-c", look], check=False).stdout
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
    node.run(["bash"], snippet(page, name), environ, check=False)
    assert node.run(["sh", "-c", look], check=False).stdout == before


def test_the_sandbox_does_not_begin_on_the_real_node() -> None:
    done = subprocess.run(
        [SANDBOX, "--inside", "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "this is not a private node" in done.stderr


def test_the_sandbox_ends_with_its_command() -> None:
    done = subprocess.run([SANDBOX, "sh", "-c", "ip netns add red; exit 7"], check=False)
    assert done.returncode == 7
    assert "red" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout  # noqa: PLW1510


@pytest.mark.parametrize("bridge", [True, False])
def test_what_is_left_goes_with_the_last_pod(node: Node, *, bridge: bool) -> None:
    node.write_subnet_env()
    node.add_pod("a")
    assert call(node, "ADD", "a").result
    assert call(node, "DEL", "a").status == 0
    if not bridge:
        node.run(["ip", "link", "del", "cni0"])
    node.run(["bash"], snippet("docs/troubleshooting.md", "bridge"), check=False)
    assert "cni0" not in node.links()
    assert not node.path("/var/lib/cni/networks/cbr0").exists()


WITHOUT_IP = ("bash", "cat", "grep", "head", "rm", "tr")


def without_ip(node: Node) -> list[str]:
    """Give the words of a shell that finds no ip."""
    node.path("/run/tools").mkdir()
    for name in WITHOUT_IP:
        node.path(f"/run/tools/{name}").symlink_to(f"/usr/bin/{name}")
    return ["env", "PATH=/run/tools", "bash"]


@pytest.mark.parametrize("how", ["a port", "no port any more", "no ip", "no bridge"])
def test_what_a_living_pod_has_is_not_removed(node: Node, how: str) -> None:
    node.write_subnet_env()
    node.add_pod("a")
    assert call(node, "ADD", "a").result
    shell = ["bash"]
    if how == "no ip":
        shell = without_ip(node)
    elif how == "no bridge":
        node.run(["ip", "link", "del", "cni0"])
    elif how == "no port any more":
        (veth,) = [name for name in node.links() if name.startswith("veth")]
        node.run(["ip", "link", "set", veth, "nomaster"])
    node.run(shell, snippet("docs/troubleshooting.md", "bridge"), check=False)
    assert node.files("/var/lib/cni/flannel")
    assert node.path("/var/lib/cni/networks/cbr0/10.244.1.2").exists()
    assert ("cni0" in node.links()) == (how != "no bridge")


CRICTL = {
    "it is missing": (None, 1, []),
    "it fails": ("#!/bin/sh\necho 'connection refused' >&2; exit 1\n", 1, []),
    "the pod lives": (
        "#!/bin/sh\necho cid-living\necho cid-dead-not\n",
        0,
        ["10.244.1.9 cid-dead"],
    ),
    "it knows no pod": ("#!/bin/sh\nexit 0\n", 0, ["10.244.1.9 cid-dead"]),
}


@pytest.mark.parametrize(("crictl", "status", "listed"), CRICTL.values(), ids=CRICTL)
def test_leases_against_pods(
    node: Node, crictl: str | None, status: int, listed: list[str]
) -> None:
    """A pod that lives is never called dead, whatever crictl is and says."""
    node.write_subnet_env()
    node.add_pod("living")
    assert call(node, "ADD", "living").result
    node.write("/var/lib/cni/networks/cbr0/10.244.1.9", "cid-dead\r\neth0")
    if crictl is not None:
        node.path(node.write("/run/bin/crictl", crictl)).chmod(0o755)
    environ = {"PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    done = node.run(["bash"], snippet("docs/troubleshooting.md", "leases"), environ, check=False)
    assert done.status == status
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == listed
    assert ("nothing is known" in done.stderr) == (status != 0)


def test_leases_without_ip(node: Node) -> None:
    node.write_subnet_env()
    node.add_pod("living")
    assert call(node, "ADD", "living").result
    shell = without_ip(node)
    node.path(node.write("/run/tools/crictl", "#!/bin/bash\nexit 0\n")).chmod(0o755)
    done = node.run(shell, snippet("docs/troubleshooting.md", "leases"), check=False)
    assert (done.status, done.stdout) == (1, "")
    assert "nothing is known" in done.stderr
