"""Attachments on a private node, for the tests of the bridge plugin: confs, calls, what is left.

Pods are called p1, p2, ... and their containers c1, c2, ... The network is "net" unless a conf
says otherwise, and its leases lie where host-local keeps them by default.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Node, Outcome

SUBNET, GATEWAY = "10.88.1.0/24", "10.88.1.1/24"
SUBNET6, GATEWAY6 = "fd00:88::/64", "fd00:88::1/64"
GO_BRIDGE = "/usr/lib/cni/bridge"
LEASES = "/var/lib/cni/networks"

MARKS = [needs_root]
needs_go = pytest.mark.skipif(not os.path.exists(GO_BRIDGE), reason=f"no {GO_BRIDGE}")


def host_local(*subnets: str, **keys: Any) -> dict[str, Any]:
    """Return an ipam section with one range set per subnet."""
    return {"type": "host-local", "ranges": [[{"subnet": one}] for one in subnets], **keys}


def make_conf(**keys: Any) -> dict[str, Any]:
    """Return a conf of the bridge plugin: a gateway and one IPv4 address unless told otherwise."""
    conf = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "bridge",
        "isGateway": True,
        "ipam": host_local(SUBNET),
        **keys,
    }
    return {key: value for key, value in conf.items() if value is not None}


def call(node: Node, command: str, conf: dict[str, Any], pod: int = 1, **options: Any) -> Outcome:
    """Call the bridge plugin for a pod's eth0."""
    options = {"plugin": "bridge", "netns": f"/run/netns/p{pod}", **options}
    return node.cni(command, conf, container_id=f"c{pod}", **options)


def add(node: Node, conf: dict[str, Any], pod: int = 1, **options: Any) -> Outcome:
    """ADD, after making the pod if it is not there."""
    if not node.path(f"/run/netns/p{pod}").exists():
        node.add_pod(f"p{pod}")
    return call(node, "ADD", conf, pod, **options)


def attach(node: Node, conf: dict[str, Any], pod: int = 1, **options: Any) -> dict[str, Any]:
    """ADD that must succeed; its result."""
    return add(node, conf, pod, **options).result


def delete(node: Node, conf: dict[str, Any], pod: int = 1, **options: Any) -> None:
    """DEL, which must succeed and print nothing."""
    outcome = call(node, "DEL", conf, pod, **options)
    assert outcome.status == 0, outcome
    assert not outcome.stdout


def check(
    node: Node, conf: dict[str, Any], result: dict[str, Any], pod: int = 1, **options: Any
) -> Outcome:
    """CHECK against a result."""
    return call(node, "CHECK", {**conf, "prevResult": result}, pod, **options)


def host_veth(result: dict[str, Any]) -> str:
    """Return the name of the host's end in a result."""
    return str(result["interfaces"][1]["name"])


def leases(node: Node, network: str = "net") -> list[str]:
    """Return the leased addresses of a network."""
    names = node.files(f"{LEASES}/{network}")
    return sorted(name for name in names if name[0].isdigit() or ":" in name)


def rules(node: Node) -> list[str]:
    """Return all packet filter rules and chains that belong to attachments."""
    found = []
    for program in ("iptables-save", "ip6tables-save"):
        lines = node.run([program, "-t", "nat"]).stdout.splitlines()
        found += [line for line in lines if line.startswith(("-A", ":CNI-"))]
    for item in json.loads(node.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]:
        ((kind, body),) = item.items()
        table = (body.get("family"), body.get("table"))
        if table not in {("bridge", "nat"), ("inet", "cni_plugins_masquerade")}:
            continue
        if (kind == "rule" and "comment" in body) or body.get("name", "").startswith("cni-br"):
            kept = {key: value for key, value in body.items() if key != "handle"}
            found.append(json.dumps({kind: kept}, sort_keys=True))
    return found


def traces(node: Node) -> list[str]:
    """Return what attachments have on a node: links, leases, rules, neighbours, files."""
    kept = {"lock"}
    return [
        *(f"link {name}" for name in node.links() if name.startswith("veth")),
        *(f"lease {name}" for name in leases(node)),
        *(f"rule {rule}" for rule in rules(node)),
        *(f"neighbour {entry['dst']}" for entry in neighbours(node)),
        *(
            f"file {path}"
            for path in node.files("/var/lib/cni")
            if path.rsplit("/", 1)[-1] not in kept
            and not path.rsplit("/", 1)[-1].startswith(("last_reserved_ip", "."))
            and path.rsplit("/", 1)[-1] not in leases(node)
        ),
    ]


def neighbours(node: Node, dev: str = "cni0") -> list[dict[str, Any]]:
    """Return the neighbour entries of a link that hold a unicast MAC."""
    return [
        entry
        for entry in node.neighbours()
        if entry.get("dev") == dev
        and "lladdr" in entry
        and "NOARP" not in entry.get("state", [])
        and not entry["dst"].startswith("fe80:")
    ]


def sysctl(node: Node, path: str, pod: str | None = None) -> str:
    """Read a switch on the node or in a pod."""
    argv = ["cat", f"/proc/sys/{path}"]
    outcome = node.run(argv) if pod is None else node.pod_run(pod, argv)
    return outcome.stdout.strip()


def set_sysctl(node: Node, path: str, value: str, pod: str | None = None) -> None:
    """Write a switch on the node or in a pod."""
    argv = ["sh", "-c", f"echo {value} > /proc/sys/{path}"]
    if pod is None:
        node.run(argv)
    else:
        node.pod_run(pod, argv)


def program(node: Node, path: str, script: str) -> str:
    """Write a shell script into the node as a program; its path."""
    node.write(path, f"#!/bin/sh\n{script}\n")
    node.path(path).chmod(0o755)
    return path


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until something is so that another process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it never came about that {what}"
        time.sleep(0.005)


def end_pod(node: Node, pod: int = 1) -> None:
    """Remove a pod's namespace, and wait for the kernel to take its links away."""
    peers = {link["link_index"] for link in node.links(f"p{pod}").values() if "link_index" in link}
    node.del_pod(f"p{pod}")
    eventually(
        lambda: not peers & {link["ifindex"] for link in node.links().values()},
        "the host's ends of the pod's links go",
    )


def tampered(
    node: Node, inject: str, conf: dict[str, Any], pod: int = 1, command: str = "ADD"
) -> Outcome:
    """Call the bridge plugin under strace(1), which tampers with one of its system calls."""
    names = inject.split(":", 1)[0]
    argv = ["strace", "-o", "/dev/null", "-e", f"trace={names}", "-e", f"inject={inject}"]
    environ = node.environment(command, f"c{pod}", "eth0", f"/run/netns/p{pod}")
    argv.append(node.program("bridge"))
    return node.run(argv, json.dumps(conf), environ, check=False)
