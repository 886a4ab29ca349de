"""Under a umask of 0 nothing that calls make is anybody's to write, nor is it by an own folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import CONF, with_result

if TYPE_CHECKING:
    from tests.kernel.conftest import Node
    from tests.kernel.resident import Resident

OPEN = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
CONFS: dict[str, dict[str, Any]] = {
    "usual": {},
    "own folders": {"dataDir": "/run/own/state/a/b", "ipam": {"dataDir": "/run/own/leases/a/b"}},
}


@pytest.mark.parametrize("conf", CONFS)
@pytest.mark.parametrize("served", ["a process per call", "the resident process"])
def test_nothing_is_anybody_s_to_write(
    node: Node, resident: Resident, served: str, conf: str
) -> None:
    program = resident.launcher
    if served == "the resident process":
        resident.start(wrapped=OPEN)
        program = resident.lonely()
    sent = CONF | CONFS[conf]
    for command in ("ADD", "CHECK", "STATUS", "GC"):
        environ = node.environment(command, "cid-a", "eth0", "/run/netns/a")
        done = node.run([*OPEN, program], json.dumps(sent), environ, check=False)
        assert done.status == 0, done
        if command == "ADD":
            sent = with_result(sent, done.result)
    found = ["find", "/var/lib", "/run", "-path", "/run/netns", "-prune", "-o", "-perm", "/022"]
    # The folder around the socket is root's alone.
    written = node.run([*found, "!", "-type", "l", "!", "-type", "s", "-print"]).stdout.split()
    assert [path for path in written if "/plugins" not in path] == []
