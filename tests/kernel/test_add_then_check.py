"""CHECK right after ADD finds nothing wrong, whatever conf ADD accepts; what it refuses it names.

The confs are `generated`: whole calls in a private node, of the frozen plugins and of those that
foreign delegates are. A failed ADD has a code that tells the kind of failure, and leaves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.kernel.attachments import check_error, remains
from tests.kernel.generated import bridge_confs, flannel_chains
from tests.kernel.test_flannel_delegates import needs_go

if TYPE_CHECKING:
    from tests.kernel.conftest import Node, Outcome
    from tests.kernel.generated import Chain
    from tests.kernel.resident import Resident

RULES = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
_CLEAN = """
ip netns del a 2>/dev/null
ip -o link show type bridge | awk -F': ' '{print "link del", $2}' | ip -batch -
ip link del uplink
rm -rf /var/lib/cni
ip netns add a
ip link add uplink up type veth peer name switch
"""


class Attachment:
    """One interface of the pod "a", by a conf; `program` is the plugin that is called."""

    def __init__(self, node: Node, conf: dict[str, Any], ifname: str, program: str) -> None:
        self._node = node
        self._conf = conf
        self._ifname = ifname
        self._program = program
        self._result: dict[str, Any] | None = None

    def call(self, command: str) -> Outcome:
        """Call the plugin; an error that it answers has a cause."""
        conf = self._conf if self._result is None else self._conf | {"prevResult": self._result}
        options: dict[str, Any] = {
            "ifname": self._ifname,
            "netns": "/run/netns/a",
            "plugin": self._program,
        }
        done = self._node.cni(command, conf, container_id="cid-a", **options)
        if done.status:
            check_error(done)
            assert "dmesg" not in done.error.get("details", ""), done
        return done

    def add(self) -> bool:
        """ADD; whether the plugin accepts the conf."""
        done = self.call("ADD")
        if done.status == 0:
            self._result = done.result
        return done.status == 0

    def must(self, command: str) -> None:
        """Call a verb that must succeed."""
        done = self.call(command)
        assert (done.status, done.stdout) == (0, ""), done


def attach_and_detach(node: Node, *attachments: Attachment) -> None:
    """Every ADD that succeeds is confirmed by CHECK, when all are there; nothing is left of any."""
    node.run(["sh", "-c", _CLEAN], check=False)
    for one in [one for one in attachments if one.add()]:
        one.must("CHECK")
    for one in attachments:
        one.must("DEL")
    left = remains(node)
    left["links"] = [
        name for name in left["links"] if not name.startswith(("net", "uplink", "switch"))
    ]
    # The kernel finds the neighbours of the bridge itself.
    left["neighbours"] = [name for name in left.get("neighbours", []) if "fe80:" not in name]
    assert not any(left.values()), left


@pytest.mark.parametrize("served", ["frozen", "resident"])
def test_bridge(node: Node, resident: Resident, served: str) -> None:
    program = "bridge"
    if served == "resident":
        resident.start()
        program = resident.lonely("bridge")

    @RULES
    @given(st.tuples(bridge_confs("net0")) | st.tuples(bridge_confs("net0"), bridge_confs("net1")))
    def check(confs: tuple[dict[str, Any], ...]) -> None:
        attachments = [Attachment(node, conf, f"eth{n}", program) for n, conf in enumerate(confs)]
        attach_and_detach(node, *attachments)

    check()


@needs_go
def test_flannel(node: Node) -> None:
    @RULES
    @given(flannel_chains())
    def check(chain: Chain) -> None:
        node.write_subnet_env(**chain.env)
        attach_and_detach(node, Attachment(node, chain.conf, "eth0", "flannel"))

    check()
