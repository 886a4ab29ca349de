"""`flannel serve` on a private node: the same answers, many at once, and nothing kept of any call.

Calls go through a launcher that lies alone: only the resident process can have served them.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import eventually, program
from tests.kernel.attachments import (
    CONF,
    call,
    conf_with,
    leases,
    remains,
    states,
    with_result,
)
from tests.kernel.conftest import ROOT
from tests.kernel.privatens import needs_root
from tests.kernel.resident import GREETING, SOCKET, answers, receive

if TYPE_CHECKING:
    from tests.kernel.resident import Resident

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(600)]

LEFT = b"flannel serve: left with 1 calls unfinished"
WAITING = conf_with(subnetFile="/run/later.env", subnetFileWait=60)


def start_call(
    resident: Resident, command: str, pod: str, conf: Any = CONF, *, program: str = ""
) -> subprocess.Popen[bytes]:
    """Start a call and go on while it is served."""
    node = resident.node
    environ = node.environment(command, f"cid-{pod}", "eth0", f"/run/netns/{pod}")
    stdin = os.memfd_create("stdin")
    os.write(stdin, json.dumps(conf).encode())
    os.lseek(stdin, 0, os.SEEK_SET)
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = node.popen([program or resident.lonely()], env=environ, **pipes)
    os.close(stdin)
    return started


def status_of(started: subprocess.Popen[bytes]) -> int:
    started.communicate(timeout=60)
    return started.returncode


def ended(started: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any]]:
    out, _ = started.communicate(timeout=60)
    return started.returncode, json.loads(out)


# --------------------------------------------------------------------------------- the same answers


def test_every_verb(resident: Resident) -> None:
    node = resident.node
    resident.start()
    result = resident.call("ADD").result
    assert result["interfaces"][2]["sandbox"] == "/run/netns/a"
    assert list(states(node)) == ["cid-a"]
    assert resident.call("CHECK", conf=with_result(CONF, result)).status == 0
    assert resident.call("STATUS").status == 0
    listed = {"cni.dev/valid-attachments": [{"containerID": "cid-a", "ifname": "eth0"}]}
    assert resident.call("GC", conf=CONF | listed).status == 0
    assert list(leases(node)) == ["10.244.1.2"]
    assert resident.call("DEL", conf=with_result(CONF, result)).status == 0
    assert remains(node) == {}
    assert resident.call("DEL").status == 0, "again"


def test_the_pair_and_the_resident_process_undo_each_others_work(resident: Resident) -> None:
    node = resident.node
    resident.start()
    by_itself = functools.partial(call, node)
    for add, delete in ((resident.call, by_itself), (by_itself, resident.call)):
        result = add("ADD").result
        check = with_result(CONF, result)
        assert resident.call("CHECK", conf=check).status == 0
        assert call(node, "CHECK", conf=check).status == 0
        assert delete("DEL").status == 0
        assert remains(node) == {}


def test_programs_are_told_apart_by_name(resident: Resident) -> None:
    node = resident.node
    resident.start()
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.88.1.0/24"}]]}
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam}
    leased = resident.call("ADD", conf=conf, plugin=resident.lonely("host-local")).result
    assert "interfaces" not in leased
    assert list(leases(node, "net")) == ["10.88.1.2"]
    assert resident.call("DEL", conf=conf, plugin=resident.lonely("host-local")).status == 0
    made = resident.call("ADD", conf=conf, plugin=resident.lonely("bridge")).result
    assert made["interfaces"][0]["name"] == "cni0"
    assert resident.call("ADD", plugin=resident.lonely("other")).error["code"] == 4, "flannel"


def test_a_namespace_that_only_the_caller_can_see(resident: Resident) -> None:
    """The path means another thing to the server, or nothing: what counts is what was opened."""
    node = resident.node
    resident.start()
    hidden = "mkdir -p /run/hidden && mount -t tmpfs none /run/hidden && touch /run/hidden/ns && "
    script = f"{hidden} mount --bind /run/netns/a /run/hidden/ns && exec {resident.lonely()}"
    environ = node.environment("ADD", "cid-a", "eth0", "/run/hidden/ns")
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    result = json.loads(node.run(argv, json.dumps(CONF), environ).stdout)
    assert result["interfaces"][2]["sandbox"] == "/run/hidden/ns"
    assert "eth0" in node.links("a")
    (link,) = node.path("/var/lib/cni/networks/.index/cbr0").iterdir()
    inode = node.path("/run/netns/a").stat().st_ino
    address, identity, path = os.readlink(link).split(" ")
    assert (address, path) == ("10.244.1.2", "/run/hidden/ns")
    assert identity.endswith(f":{inode}")


@pytest.mark.parametrize(
    "path", ["/run/flannel/subnet.env", "/dev/null", "/run/pipe", "/proc/self/ns/uts", "/run"]
)
def test_what_is_no_namespace_is_told_as_by_the_pair(resident: Resident, path: str) -> None:
    node = resident.node
    node.run(["mkfifo", "/run/pipe"])
    resident.start()
    for command in ("ADD", "DEL"):
        served = resident.call(command, netns=path)
        itself = call(node, command, netns=path)
        assert (served.status, served.stdout) == (itself.status, itself.stdout)


def test_the_nodes_own_namespace_is_refused(resident: Resident) -> None:
    resident.start()
    done = resident.call("ADD", netns="/proc/self/ns/net")
    assert done.error["code"] == 8
    assert "should not be the same" in done.error["msg"]


def test_del_of_a_namespace_that_is_gone(resident: Resident) -> None:
    resident.start()
    assert resident.call("ADD").result
    resident.node.del_pod("a")
    assert resident.call("DEL").status == 0
    assert resident.call("DEL", netns="").status == 0
    assert remains(resident.node) == {}


def test_steps_go_to_the_callers_stderr(resident: Resident) -> None:
    resident.start()
    done = resident.call("ADD", env={"CNI_FLANNEL_DEBUG": "1"})
    assert "ip link add cni0" in done.stderr
    assert resident.call("DEL").stderr == ""


def test_a_delegate_has_the_environment_of_the_caller(resident: Resident) -> None:
    node = resident.node
    resident.start(env={"PATH": os.environ["PATH"], "OF_THE_SERVER": "1"})
    answer = '{"cniVersion":"1.0.0","interfaces":[],"ips":[],"dns":{}}'
    program(node, "/run/bin/foreign", f"env >/run/environment; echo '{answer}'")
    conf = conf_with(cniVersion="1.0.0", delegate={"type": "foreign"})
    given: dict[str, str | None] = {
        "CNI_PATH": "/run/bin",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=a",
        "TRACEPARENT": "00-1-2-03",
        "TRACESTATE": "a=b",
        "BAGGAGE": "c=d",
        "OF_THE_CALLER": "x=y\nz",
    }
    assert resident.call("ADD", conf=conf, env=given).result
    served = node.path("/run/environment").read_text()
    node.run(["ip", "netns", "add", "b"])
    assert call(node, "ADD", "a", conf=conf, env=given).result
    itself = node.path("/run/environment").read_text()
    assert sorted(served.splitlines()) == sorted(itself.splitlines())
    assert "CNI_NETNS=/run/netns/a" in served


# -------------------------------------------------------------------------------- many, and hostile


def test_many_at_once_and_nothing_is_kept(resident: Resident) -> None:
    node = resident.node
    resident.start()
    pods = [f"p{n}" for n in range(24)]
    for pod in pods:
        node.add_pod(pod)
    before = None
    for _ in range(3):
        for command in ("ADD", "DEL"):
            running = [start_call(resident, command, pod) for pod in pods]
            assert [status_of(one) for one in running] == [0] * len(pods)
            if command == "ADD":
                assert len(set(leases(node))) == len(pods)
            resident.call("ADD", conf=conf_with(name="/"))
        eventually(lambda: not resident.busy(), "all connections are closed")
        now = len(resident.descriptors()), resident.threads()
        assert remains(node) == {}
        assert before in (None, now)
        before = now
    assert before is not None
    assert set(before[1].values()) == {os.readlink(f"/proc/{node.holder.pid}/ns/net")}


def test_clients_that_are_no_launchers_get_no_answer_and_do_no_harm(resident: Resident) -> None:
    node = resident.node
    resident.start()
    path = str(node.path(SOCKET))
    before = len(resident.descriptors())
    header = b"CNIr" + (1).to_bytes(4, "little")
    for data in (b"", b"x" * 1000, header, header + b"\xff\xff\xff\xff", header * 4):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            said = receive(client, 1 << 16)
            assert (said[:8], len(said)) == (GREETING[:8], len(GREETING))
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(200)]
    for client in waiting:
        client.connect(path)
    assert call(node, "ADD", "a", plugin=resident.launcher).result, "busy or not"
    for client in waiting:
        client.close()
    eventually(lambda: not resident.busy(), "all connections are closed")
    assert len(resident.descriptors()) == before
    assert resident.call("DEL").status == 0
    assert remains(node) == {}


def test_a_client_that_is_not_root_gets_nothing(resident: Resident) -> None:
    node = resident.node
    resident.start()
    node.path("/run/cni-flannel").chmod(0o755)
    node.path(SOCKET).chmod(0o666)
    program = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        "print(s.recv(100))\n"
    )
    done = node.run(["python3", "-Ic", program, SOCKET])
    assert done.stdout == "b''\n"


# ----------------------------------------------------------------------------- patience and its end


def test_sigterm_to_a_launcher_rolls_the_call_back(resident: Resident) -> None:
    node = resident.node
    resident.start()
    waiting = start_call(resident, "ADD", "a", WAITING)
    eventually(resident.busy, "the call is being served")
    waiting.send_signal(signal.SIGTERM)
    status, error = ended(waiting)
    assert (status, error["code"]) == (1, 11)
    assert "does not wait any more" in error["msg"]
    assert remains(node) == {}


def test_a_delegate_of_a_caller_that_gave_up_is_stopped(resident: Resident) -> None:
    node = resident.node
    resident.start()
    program(
        node,
        "/run/bin/slow",
        '[ "$CNI_COMMAND" = ADD ] || exit 0; echo $$ >/run/pid; exec sleep 600',
    )
    conf = conf_with(cniVersion="1.0.0", delegate={"type": "slow"})
    environ = node.environment("ADD", "cid-a", "eth0", "/run/netns/a") | {"CNI_PATH": "/run/bin"}
    node.write("/run/conf", json.dumps(conf))
    argv = ["sh", "-c", f"exec {resident.lonely()} </run/conf"]
    waiting = node.popen(argv, env=environ, stdout=subprocess.PIPE)
    eventually(node.path("/run/pid").exists, "the delegate runs")
    waiting.send_signal(signal.SIGTERM)
    status, error = ended(waiting)
    assert (status, error["code"]) == (1, 11)
    assert not any("sleep" in command for command in node.processes())
    assert remains(node) == {}


def test_a_call_whose_launcher_is_killed_leaves_nothing(resident: Resident) -> None:
    node = resident.node
    resident.start()
    waiting = start_call(resident, "ADD", "a", WAITING)
    eventually(resident.busy, "the call is being served")
    waiting.kill()
    assert status_of(waiting) == -signal.SIGKILL
    node.write_subnet_env("/run/later.env")
    eventually(lambda: not resident.busy(), "the call has ended")
    assert remains(node) == {}


def test_sigterm_to_the_server_finishes_what_runs_and_refuses_the_rest(resident: Resident) -> None:
    node = resident.node
    server = resident.start()
    waiting = start_call(resident, "ADD", "a", WAITING)
    eventually(resident.busy, "the call is being served")
    server.send_signal(signal.SIGTERM)
    eventually(lambda: not node.path(SOCKET).exists(), "the socket is gone")
    node.add_pod("b")
    assert resident.call("ADD", "b").error["code"] == 5
    assert call(node, "ADD", "b", plugin=resident.launcher).result
    assert server.poll() is None
    node.write_subnet_env("/run/later.env")
    status, result = ended(waiting)
    assert (status, len(result["ips"])) == (0, 1)
    assert server.wait(60) == 0


def test_a_second_sigterm_does_not_wait(resident: Resident) -> None:
    server = resident.start(stderr=subprocess.PIPE)
    waiting = start_call(resident, "ADD", "a", WAITING)
    eventually(resident.busy, "the call is being served")
    server.send_signal(signal.SIGTERM)
    eventually(lambda: not resident.node.path(SOCKET).exists(), "the socket is gone")
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate(timeout=60)
    assert (server.returncode, said.splitlines()[-1:]) == (0, [LEFT])
    waiting.kill()
    status_of(waiting)


def test_sighup_changes_nothing(resident: Resident) -> None:
    server = resident.start()
    server.send_signal(signal.SIGHUP)
    assert resident.call("ADD").result
    assert server.poll() is None


def test_a_killed_server_is_followed_by_another(resident: Resident) -> None:
    server = resident.start()
    assert resident.call("ADD").result
    server.kill()
    server.wait()
    assert resident.node.path(SOCKET).exists()
    resident.start()
    assert resident.call("DEL").status == 0
    assert remains(resident.node) == {}


def test_a_second_server_does_not_start(resident: Resident) -> None:
    resident.start()
    done = resident.node.run([str(resident.folder / "flannel"), "serve"], check=False)
    assert done.status == 1
    assert "another process serves here already" in done.stderr
    assert resident.call("ADD").result


@pytest.mark.parametrize("arguments", [["--port", "1"], ["--socket"], ["x"]])
def test_arguments_that_mean_nothing(resident: Resident, arguments: list[str]) -> None:
    argv = [str(resident.folder / "flannel"), "serve", *arguments]
    done = resident.node.run(argv, check=False)
    assert done.status == 2
    assert done.stderr.startswith("usage: flannel serve [--socket PATH]")


def test_a_service_manager_passes_the_socket_and_is_told(resident: Resident) -> None:
    node = resident.node
    node.path("/run/cni-flannel").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(node.path("/run/notify")))
        listen = ["systemd-socket-activate", "--listen", SOCKET, "-E", "NOTIFY_SOCKET=/run/notify"]
        serve = [str(resident.folder / "flannel"), "serve"]
        server = node.popen([*listen, *serve])
        eventually(node.path(SOCKET).exists, "the socket is there")
        assert resident.call("ADD").result
        assert manager.recv(100) == b"READY=1"
        server.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert server.wait(60) == 0
    assert node.path(SOCKET).exists(), "it is the manager's"


def test_a_link_that_a_killed_deletion_left_in_a_group_is_removed_by_the_next_del(
    resident: Resident,
) -> None:
    """Between the two halves of a deletion in bulk: marked, and not deleted."""
    node = resident.node
    resident.start()
    for delete in (resident.call, functools.partial(call, node)):
        host_veth = resident.call("ADD").result["interfaces"][1]["name"]
        node.run(["ip", "link", "set", host_veth, "group", str(0x40000001)])
        assert delete("DEL").status == 0
        assert remains(node) == {}


def test_gc_removes_many_at_once_by_whomever_it_is_done(resident: Resident) -> None:
    node = resident.node
    resident.start()
    pods = [f"p{n}" for n in range(12)]
    for collect in (resident.call, functools.partial(call, node)):
        for pod in pods:
            if not node.path(f"/run/netns/{pod}").exists():
                node.add_pod(pod)
            assert resident.call("ADD", pod).result
        kept = {"containerID": "cid-p3", "ifname": "eth0"}
        done = collect("GC", conf=CONF | {"cni.dev/valid-attachments": [kept]})
        assert done.status == 0
        assert done.stderr.count("GC removes veth") == len(pods) - 1
        assert list(leases(node).values()) == ["cid-p3\r\neth0"]
        assert len([name for name in node.links() if name.startswith("veth")]) == 1
        assert resident.call("DEL", "p3").status == 0
        assert remains(node).keys() <= {"neighbours"}, "which the next pod's ADD replaces"


def test_a_server_that_is_stopped_is_not_waited_for(resident: Resident) -> None:
    node = resident.node
    server = resident.start()
    server.send_signal(signal.SIGSTOP)
    assert call(node, "ADD", "a", plugin=resident.launcher).result
    before = node.links("a")["eth0"]["address"], leases(node)
    server.send_signal(signal.SIGCONT)
    eventually(lambda: not resident.busy(), "it is through with what waited")
    assert (node.links("a")["eth0"]["address"], leases(node)) == before
    assert resident.call("DEL").status == 0
    assert remains(node) == {}


def test_it_works_with_no_more_than_the_service_is_given(resident: Resident) -> None:
    """The capabilities of the unit, and with them everything that a pod can need of us."""
    node = resident.node
    unit = (ROOT / "packaging" / "systemd" / "cni-flannel.service").read_text()
    (line,) = [one for one in unit.splitlines() if one.startswith("CapabilityBoundingSet=")]
    given = [name.removeprefix("CAP_").lower() for name in line.partition("=")[2].split()]
    bounding = ",".join(["-all", *(f"+{name}" for name in given)])
    limited = ["setpriv", "--no-new-privs", "--bounding-set", bounding]
    conf = conf_with(delegate={"ipMasq": True, "macspoofchk": True, "isDefaultGateway": True})
    server = node.popen([*limited, str(resident.folder / "flannel"), "serve"])
    eventually(lambda: answers(node.path(SOCKET)), "the server answers")
    status = node.path(f"/proc/{server.pid}/status").read_text()
    assert f"CapEff:\t{capabilities(given):016x}\n" in status
    result = resident.call("ADD", conf=conf).result
    assert resident.call("CHECK", conf=with_result(conf, result)).status == 0
    node.del_pod("a")
    listed: dict[str, Any] = {"cni.dev/valid-attachments": []}
    assert resident.call("GC", conf=conf | listed).status == 0
    assert leases(node) == {}


def capabilities(names: list[str]) -> int:
    """The mask of some capabilities (linux/capability.h)."""
    numbers = {"net_admin": 12, "net_raw": 13, "sys_ptrace": 19, "sys_admin": 21}
    return sum(1 << numbers[name] for name in names)
