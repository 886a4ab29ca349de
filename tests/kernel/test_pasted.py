"""Whatever is copied from the docs into a shell of a real node, nothing of the node is lost by it.

Every block of every page, commands or not, is pasted as a terminal does it: as a whole, marked as a
paste, so that the shell runs all of it, whatever the first line came to.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.attaching import eventually
from tests.kernel.attachments import CONF, call
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {
    str(page.relative_to(ROOT)): blocks
    for page in sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
    if (blocks := BLOCK.findall(page.read_text()))
}
READY = b"@ready@"  # what the shell prints before each prompt, and nobody types
PATIENCE_S = 5.0  # with what does not end by itself
STATE = """
cat /proc/self/mounts
ip -d link | sed -E 's/[a-z_]+_timer +[0-9.]+//g'
ip address; ip rule; ip route show table all; ip -6 route show table all; ip netns
nft list ruleset
sysctl -a -r '^net\\.' 2>/dev/null | grep -v conntrack_count
find /run /var/lib /etc/cni /opt/cni ! -type d -printf '%p %m %s %l\\n' | sort
"""

# On a real node it writes into the store of a real cluster, but for an address that is nobody's.
ETCDCTL = """#!/bin/sh
case $* in "--endpoints http://192.0.2."*) ;; *) touch /run/written ;; esac
"""
SERVED = "/run/cni-flannel/"  # `flannel serve` may well be started on a node
SETTINGS = (
    b"PROMPT_COMMAND='printf @%s@ ready'; PS2='@''ready@'; bind 'set enable-bracketed-paste on'\r"
)


class Terminal:
    """An interactive bash on a node, as somebody has it who is logged in there."""

    def __init__(self, node: Node, home: Path) -> None:
        self.seen = b""
        self.fd, other = pty.openpty()
        environ = {"PATH": "/run/bin:/opt/cni/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home)}
        environ |= {"TERM": "xterm", "PAGER": "cat", "SYSTEMD_PAGER": "cat"}
        home.mkdir()
        argv = ["setsid", "--ctty", "bash", "--norc", "-i"]
        options = {"stdin": other, "stdout": other, "stderr": other, "cwd": home, "env": environ}
        self.shell = node.popen(argv, **options)
        os.close(other)
        os.write(self.fd, SETTINGS)
        assert self.is_ready(), self.seen

    def is_ready(self) -> bool:
        """Wait for the prompt."""
        self.seen = b""
        end = time.monotonic() + PATIENCE_S
        while READY not in self.seen and time.monotonic() < end:
            if select.select([self.fd], [], [], 1.0)[0]:
                try:
                    self.seen += os.read(self.fd, 1 << 16)
                except OSError:  # the shell has ended
                    return False
        return READY in self.seen

    def paste(self, text: str) -> str:
        """Paste, press return, and end what goes on then; what came on the screen."""
        os.write(self.fd, b"\x1b[200~" + text.encode() + b"\x1b[201~\r")
        screen = b""
        for _ in range(3):
            ready = self.is_ready()
            screen += self.seen
            if ready:
                break
            os.write(self.fd, b"\x03")
        return screen.decode(errors="replace")

    def close(self) -> None:
        self.shell.send_signal(signal.SIGHUP)
        os.close(self.fd)
        self.shell.wait(PATIENCE_S)


def state(node: Node) -> list[str]:
    """What a node has, when no link comes up or goes down any more."""
    seen: list[str] = []

    def settled() -> bool:
        nonlocal seen
        last, seen = seen, node.run(["sh", "-c", STATE], check=False).stdout.splitlines()
        return last == seen

    eventually(settled, "nothing changes by itself")
    return seen


@pytest.mark.parametrize("page", PAGES)
def test_nothing_of_a_node_is_lost(node: Node, plugins: Path, tmp_path: Path, page: str) -> None:
    built = (plugins / "flannel").resolve().parent
    script = f"""
        sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
        mount -t tmpfs -o mode=755 none /opt && mkdir -p /opt/cni/bin
        mount --bind {built} /opt/cni/bin
        ip link add eth0 type veth peer name wire && ip address add 192.168.9.1/24 dev eth0
        ip link set eth0 up && ip link set wire up
        ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 && ip link set flannel.1 up
    """
    node.run(["sh", "-ec", script])
    node.path(node.write("/run/bin/etcdctl", ETCDCTL)).chmod(0o755)
    node.write_subnet_env(subnet="10.244.9.1/24", mtu="1400")
    node.add_pod("blue")
    assert call(node, "ADD", "blue", conf=CONF).result
    for number, block in enumerate(PAGES[page]):
        before = state(node)
        terminal = Terminal(node, tmp_path / str(number))
        screen = terminal.paste(block)
        terminal.close()
        after = state(node)
        changed = [f"- {line}" for line in before if line not in after]
        changed += [f"+ {line}" for line in after if line not in before if SERVED not in line]
        assert changed == [], f"{block}\n{screen}"
