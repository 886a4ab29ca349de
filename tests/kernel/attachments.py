"""What the tests of whole plugin calls share: confs, calls for one pod, and what a call left.

`snapshot` is everything of a node that a failed call must not change; `remains` is everything that
belongs to attachments, which must be empty when they are gone.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.conftest import Node, Outcome

STATE = "/var/lib/cni/flannel"
LEASES = "/var/lib/cni/networks"
LAST_RESERVED = "cni/networks/cbr0/last_reserved_ip.0"  # as `snapshot` names it
SUBNET_ENV = "/run/flannel/subnet.env"

# kube-flannel.yml's own delegate, in a version that has every verb
CONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "cbr0",
    "type": "flannel",
    "delegate": {"hairpinMode": True, "isDefaultGateway": True},
}
DUAL_STACK: dict[str, Any] = {"ipv6_network": "fd00:f1::/56", "ipv6_subnet": "fd00:f1:0:1::1/64"}
ONLY_V6: dict[str, Any] = {"network": None, "subnet": None, **DUAL_STACK}

# What the kernel and its modules keep for themselves; none of it belongs to an attachment.
_BOOKKEEPING = ("lock", "last_reserved_ip.", ".index")
_LASTING_LINKS = ("lo", "cni0", "keep0")

# What the reference plugin writes for the same conf and subnet.env.
GOLDEN = {
    "cniVersion": "1.1.0",
    "hairpinMode": True,
    "ipMasq": False,
    "ipam": {
        "ranges": [[{"subnet": "10.244.1.0/24"}]],
        "routes": [{"dst": "10.244.0.0/16"}],
        "type": "host-local",
    },
    "isDefaultGateway": True,
    "isGateway": True,
    "mtu": 1450,
    "name": "cbr0",
    "type": "bridge",
}


def conf_with(**changes: Any) -> dict[str, Any]:
    """Return `CONF` with keys replaced; None removes one."""
    changed = copy.deepcopy(CONF) | changes
    return {key: value for key, value in changed.items() if value is not None}


def add(
    node: Node, pod: str = "a", container_id: str = "", conf: Any = CONF, **options: Any
) -> Outcome:
    """ADD for a pod, whose namespace is made if need be; the container is called after it."""
    if not node.path(f"/run/netns/{pod}").exists():
        node.add_pod(pod)
    return call(node, "ADD", pod, container_id, conf, **options)


def must_add(
    node: Node, pod: str = "a", container_id: str = "", conf: Any = CONF, **options: Any
) -> dict[str, Any]:
    """ADD for a pod, which must succeed; the result."""
    return add(node, pod, container_id, conf, **options).result


def delete(
    node: Node, pod: str = "a", container_id: str = "", conf: Any = CONF, **options: Any
) -> Outcome:
    """DEL for a pod; it must succeed and say nothing."""
    done = call(node, "DEL", pod, container_id, conf, **options)
    assert (done.status, done.stdout) == (0, ""), done
    return done


def call(
    node: Node,
    command: str,
    pod: str = "a",
    container_id: str = "",
    conf: Any = CONF,
    **options: Any,
) -> Outcome:
    """Any verb for a pod; `netns` replaces the path of its namespace."""
    options = {"netns": f"/run/netns/{pod}", **options}
    return node.cni(command, conf, container_id=container_id or f"cid-{pod}", **options)


def with_result(conf: dict[str, Any], result: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the conf as the runtime sends it after an ADD."""
    return conf | {"prevResult": result} | changes


def address_of(outcome: Outcome, family: int = 4) -> str:
    """Return the first address of a family in a result, without its length."""
    sign = "." if family == 4 else ":"
    ips: list[dict[str, str]] = outcome.result["ips"]
    return next(ip["address"] for ip in ips if sign in ip["address"]).partition("/")[0]


def leases(node: Node, network: str = "cbr0") -> dict[str, str]:
    """Return the network's leases: address -> the file's text."""
    files = node.files(f"{LEASES}/{network}")
    return {
        name: content.decode()
        for name, content in files.items()
        if not name.startswith(_BOOKKEEPING)
    }


def states(node: Node) -> dict[str, Any]:
    """Return the state files: name -> what the JSON says, or the text if it is none."""
    return {name: _json(content) for name, content in node.files(STATE).items()}


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()


def rules(node: Node) -> list[str]:
    """Return every rule and chain of the packet filter, without counters.

    iptables tells its own rules (nft cannot print all of them), nft those of the other tables.
    """
    script = "iptables-save; ip6tables-save; nft --stateless list ruleset"
    lines = node.run(["sh", "-c", script]).stdout.splitlines()
    kept = [line.partition(" [")[0].strip() for line in lines if not line.startswith("#")]
    return [line for line in kept if line]


def remains(node: Node) -> dict[str, Any]:
    """Return what attachments have left on a node; {} when everything is gone."""
    names = [name for name in node.links() if name not in _LASTING_LINKS]
    known = [entry for entry in node.neighbours() if "NOARP" not in entry.get("state", [])]
    neighbours = [entry["dst"] for entry in known]
    leased = {
        name: content
        for name, content in node.files(LEASES).items()
        if not name.split("/", 1)[-1].startswith(_BOOKKEEPING) and not name.startswith(".index")
    }
    # The chains that all pods share may stay, as Go's plugin leaves them; a rule of a pod may not.
    of_pods = [line for line in rules(node) if "cid-" in line or "CNI-" in line]
    found = {
        "links": names,
        "neighbours": neighbours,
        "leases": leased,
        "states": node.files(STATE),
        "rules": of_pods,
    }
    return {what: left for what, left in found.items() if left}


def snapshot(node: Node, pod: str | None = None) -> dict[str, Any]:
    """Return everything that a call which fails must leave as it was."""
    places = [""] if pod is None else ["", f"-n {pod}"]
    queries = ("-d address", "-4 route show table all", "-6 route show table all")
    commands = [f"ip {place} -j {query}; echo" for place in places for query in queries]
    told = node.run(["sh", "-c", "; ".join(commands)]).stdout.split("\n")
    found = iter([json.loads(line) for line in told if line])
    return {
        "links": [_links_and_routes(next(found), next(found), next(found)) for _ in places],
        "rules": rules(node),
        "files": _files(node),
    }


def _links_and_routes(
    links: list[dict[str, Any]], routes4: list[dict[str, Any]], routes6: list[dict[str, Any]]
) -> dict[str, Any]:
    """Keep of what ip(8) tells the parts that do not change by themselves."""
    keys = ("ifindex", "mtu", "address", "master", "ifalias")
    return {
        "links": {
            link["ifname"]: [
                *(link.get(key) for key in keys),
                "UP" in link["flags"],
                sorted(one["local"] for one in link["addr_info"] if one.get("scope") == "global"),
            ]
            for link in links
            if link
        },
        "routes": sorted(
            f"{route['dst']} {route.get('gateway')} {route.get('dev')}"
            for route in [*routes4, *routes6]
            if not route["dst"].startswith(("fe80:", "ff00:"))
        ),
    }


def _files(node: Node) -> dict[str, bytes]:
    """Return all files; an empty lock, and a directory, are no change."""
    found = {**node.files("/run"), **node.files("/var/lib")}
    return {name: content for name, content in found.items() if not name.endswith("/lock")}


def refused(
    node: Node, command: str = "ADD", conf: Any = CONF, pod: str = "a", **options: Any
) -> dict[str, Any]:
    """Call; expect exit status 1, exactly one error on stdout and a node that is as before.

    The round of addresses may have gone on: a lease was made and taken back.
    """
    before = snapshot(node, "a")
    done = call(node, command, pod, conf=conf, **options)
    check_error(done)
    after = snapshot(node, "a")
    before["files"][LAST_RESERVED] = after["files"].get(LAST_RESERVED)
    assert after == before
    return done.error


def check_error(done: Outcome) -> None:
    """One JSON object with code and message on stdout, no traceback on stderr."""
    assert done.status == 1, done
    assert "Traceback" not in done.stderr
    error = done.error
    assert set(error) <= {"cniVersion", "code", "msg", "details"}
    assert isinstance(error["code"], int)
    assert error["msg"]
    assert error["code"] != 100, error  # a bug of ours


def keep_carrier(node: Node) -> None:
    """Give the bridge a port that stays: without one the kernel forgets neighbours by itself."""
    node.add_pod("keeper")
    peer = ["type", "veth", "peer", "name", "keep1", "netns", "keeper"]
    node.run(["ip", "link", "add", "keep0", "up", "master", "cni0", *peer])
    node.run(["ip", "-n", "keeper", "link", "set", "keep1", "up"])


def ping(node: Node, pod: str, address: str) -> bool:
    """Whether a pod reaches an address."""
    argv = ["ping", "-c", "1", "-W", "5", address]
    return node.pod_run(pod, argv, check=False).status == 0


def until(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Wait for something that another process does; False when it never comes true."""
    return any(condition() for _ in _ticks(seconds))


def _ticks(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.005)


@contextlib.contextmanager
def running(
    node: Node, *argv: str, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the node, ended with the block at the latest."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": env}
    with node.popen(argv, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def locked(node: Node, path: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds an flock(2) on a file, which it makes if need be."""
    node.write(path, "")
    with running(node, "flock", "--no-fork", path, "sleep", "60") as holder:
        assert until(lambda: lockers(node, path) == 1)
        yield holder


def lockers(node: Node, path: str) -> int:
    """How many processes hold or wait for a lock on a file."""
    file = node.path(path).stat()
    name = f" {os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino} "
    return node.run(["cat", "/proc/locks"]).stdout.count(name)


def forge_plugin(node: Node, name: str, script: str, folder: str = "/run/plugins") -> None:
    """Put a shell script into CNI_PATH under a plugin's name; it finds its verb in CNI_COMMAND."""
    path = node.write(f"{folder}/{name}", f"#!/bin/sh\n{script}\n")
    node.path(path).chmod(0o755)
    if folder not in node.cni_path.split(":"):
        node.cni_path = f"{folder}:{node.cni_path}"
