"""A private node for each test: conformance's World, with `ip -j` as a second pair of eyes.

The node is its own network and mount namespaces, gone when the test is, or when pytest is killed.
Inside, /run, /var/lib and /etc/cni are empty, and pods are network namespaces under /run/netns.

CNI_FLANNEL_BIN names the folder with the plugins under test (by default dist/cni-flannel); the word
`source` runs the checkout unfrozen.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.world import GO_PLUGINS, SYSTEM_PATH, Outcome, World, WorldError, processes_in
from tests.kernel.resident import Resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["GO_PLUGINS", "PROGRAMS", "ROOT", "SYSTEM_PATH", "Node", "Outcome", "processes_in"]

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"flannel": "cni_flannel", "bridge": "cni_flannel", "host-local": "ipam"}


class Node(World):
    """The world that kernel tests know by this name; making one that fails fails the test."""

    def __init__(self, plugins: Path) -> None:
        try:
            super().__init__(plugins)
        except WorldError as error:
            pytest.fail(str(error))

    # -------------------------------------------------------------------------- state of the kernel

    def ip(self, *argv: str, pod: str | None = None) -> list[dict[str, Any]]:
        """Run `ip -j -d ...`, on the node or in a pod, and give what it prints."""
        where = [] if pod is None else ["-n", pod]
        text = self.run(["ip", *where, "-j", "-d", *argv]).stdout
        # iproute2 prints an empty object for a filtered-out line, and nothing for an empty table.
        return [entry for entry in json.loads(text or "[]") if entry]

    def links(self, pod: str | None = None) -> dict[str, dict[str, Any]]:
        """Links by name."""
        return {link["ifname"]: link for link in self.ip("link", "show", pod=pod)}

    def addresses(self, pod: str | None = None) -> dict[str, list[str]]:
        """Addresses by link name, as `10.244.1.1/24`; link-local IPv6 left out."""
        return {
            link["ifname"]: [
                f"{address['local']}/{address['prefixlen']}"
                for address in link.get("addr_info", [])
                if not (address["family"] == "inet6" and address["scope"] == "link")
            ]
            for link in self.ip("address", "show", pod=pod)
        }

    def routes(
        self, pod: str | None = None, *, family: int = 4, table: str = "main"
    ) -> list[dict[str, Any]]:
        """Routes of one family and table."""
        return self.ip(f"-{family}", "route", "show", "table", table, pod=pod)

    def neighbours(self, pod: str | None = None) -> list[dict[str, Any]]:
        """Neighbour entries of both families, permanent ones included."""
        return self.ip("neighbour", "show", "nud", "all", pod=pod)


def may_make_namespaces() -> bool:
    probe = ["unshare", "--net", "--mount", "true"]
    if os.geteuid() != 0:
        probe[1:1] = ["--user", "--map-root-user"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def shim(package: str) -> str:
    """A program that runs a package of the checkout, seeing the name it was called by."""
    return (
        f"#!{os.path.realpath(sys.executable)} -IS\n"
        f"import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.dont_write_bytecode = True\n"
        f"runpy.run_module({package!r}, run_name='__main__')\n"
    )


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with flannel, host-local and bridge: links to the frozen ones, or shims."""
    where = os.environ.get("CNI_FLANNEL_BIN") or str(ROOT / "dist" / "cni-flannel")
    folder = tmp_path_factory.mktemp("plugins")
    for name, package in PROGRAMS.items():
        program = folder / name
        if where == "source":
            program.write_text(shim(package))
            program.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
            continue
        frozen = Path(where, "flannel" if name == "bridge" else name).resolve()
        if not frozen.exists():
            pytest.skip(f"{frozen} is not built: run ./build.sh, or set CNI_FLANNEL_BIN=source")
        program.symlink_to(frozen)
    return folder


@pytest.fixture
def new_node(plugins: Path) -> Iterator[Callable[[], Node]]:
    """Make as many nodes as a test wants."""
    if not may_make_namespaces():
        pytest.skip("needs root, or user namespaces")
    nodes: list[Node] = []

    def make() -> Node:
        nodes.append(Node(plugins))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def node(new_node: Callable[[], Node]) -> Node:
    """One private node."""
    return new_node()


@pytest.fixture
def resident(node: Node, plugins: Path) -> Resident:
    """Launchers of the built folder, on a node with the daemon's file and the pod "a"."""
    folder = (plugins / "flannel").resolve().parent
    if not (folder / ".cni-flannel").exists():
        pytest.skip(f"no launchers in {folder}: not built")
    node.write_subnet_env()
    node.add_pod("a")
    return Resident(node, folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)
