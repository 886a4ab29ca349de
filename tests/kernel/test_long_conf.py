"""The longest confs that ADD takes: every other verb takes them, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import add, call, conf_with, remains, with_result
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from tests.kernel.resident import Resident

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(600)]

HERE = "HERE"
DEEPEST = 1000
MASQUERADES = {"isDefaultGateway": True, "ipMasq": True}
LONG: dict[str, dict[str, Any]] = {
    "an unknown key": conf_with(other="x" * (5 << 20)),
    "the delegate's": conf_with(delegate={"isDefaultGateway": True, "other": "x" * (5 << 20)}),
    "names": conf_with(name="n" * 200, delegate=MASQUERADES),
    "routes": conf_with(
        ipam={"routes": [{"dst": f"10.{100 + n // 250}.{n % 250}.0/24"} for n in range(1000)]}
    ),
    "ports": conf_with(
        runtimeConfig={"portMappings": [{"hostPort": n, "containerPort": n} for n in range(40_000)]}
    ),
}
DEEP: dict[str, dict[str, Any]] = {
    "an unknown key": conf_with(other=HERE),
    "the delegate's": conf_with(delegate={"isDefaultGateway": True, "other": HERE}),
    "ipam's": conf_with(ipam={"type": "host-local", "other": HERE}),
    "args": conf_with(args={"cni": {"other": HERE}}),
}


def nested(conf: dict[str, Any], levels: int) -> bytes:
    """The conf's text with so many lists where it says HERE."""
    lists = "[" * levels + "]" * levels
    return json.dumps(conf).replace(f'"{HERE}"', lists).encode()


def every_verb(resident: Resident, conf: dict[str, Any], program: str, levels: int = 0) -> bool:
    """ADD, and then the others; whether ADD takes the conf."""
    node, container_id = resident.node, "c" * 200 if len(conf["name"]) > 100 else "cid-a"
    options: dict[str, Any] = {"container_id": container_id, "plugin": program}
    done = add(node, conf=nested(conf, levels), **options)
    if done.status != 0:
        assert done.error["code"] in {6, 7}
        return False
    told = with_result(conf, done.result)
    valid = [{"containerID": container_id, "ifname": "eth0"}]
    listed = conf | {"cni.dev/valid-attachments": valid}
    others = {"STATUS": conf, "CHECK": told, "GC": listed, "DEL": told}
    for command, given in others.items():
        done = call(node, command, conf=nested(given, levels), **options)
        assert (command, done.status, done.stdout) == (command, 0, "")
    assert remains(node) == {}
    return True


def program_of(resident: Resident, mode: str) -> str:
    """What the runtime calls: the plugin, or a launcher of the resident process."""
    if mode == "plain":
        return "flannel"
    resident.start()
    return resident.launcher


@pytest.mark.parametrize("mode", ["plain", "resident"])
@pytest.mark.parametrize("kind", LONG)
def test_every_verb_takes_a_long_conf(resident: Resident, mode: str, kind: str) -> None:
    assert every_verb(resident, LONG[kind], program_of(resident, mode))


@pytest.mark.parametrize("mode", ["plain", "resident"])
@pytest.mark.parametrize("kind", DEEP)
def test_every_verb_takes_the_deepest_conf(resident: Resident, mode: str, kind: str) -> None:
    """What ADD has said yes to at last is nested as deeply as can be."""
    program = program_of(resident, mode)
    taken = (n for n in range(DEEPEST, 0, -1) if every_verb(resident, DEEP[kind], program, n))
    assert next(taken, 0) > DEEPEST - 100
