"""The socket's name, and what a service manager passes: taken, replaced, refused."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cni_flannel.resident import activation
from cni_flannel.resident.address import Address

ROOT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the folder must be root's")


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@needs_root
def test_only_root_can_reach_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "cni-flannel" / "cni.sock"
    address = Address(str(path))
    connect(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    address.close()
    assert [file.name for file in path.parent.iterdir()] == ["cni.sock.lock"]


@needs_root
def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    for name in ("cni.sock", "cni.sock.new"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / name))
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    address = Address(str(path))
    connect(path)
    address.close()


@needs_root
def test_two_do_not_serve_one_address(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    address = Address(str(path))
    with pytest.raises(ValueError, match="another process serves here already"):
        Address(str(path))
    connect(path)
    address.close()
    Address(str(path)).close()


@needs_root
def test_a_name_that_is_another_socket_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    address = Address(str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        address.close()
        connect(path)


@needs_root
@pytest.mark.parametrize(("mode", "owner"), [(0o770, 0), (0o777, 0), (0o700, 65534)])
def test_a_folder_that_others_can_write_to_is_refused(
    tmp_path: Path, mode: int, owner: int
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    os.chown(folder, owner, 0)
    with pytest.raises(ValueError, match="must be root's, and nobody else may write"):
        Address(str(folder / "cni.sock"))
    assert list(folder.iterdir()) == []


def passed(listener: socket.socket | None, environ: str) -> str:
    """What `passed_socket` says in a process that got a descriptor 3 as a manager passes it."""
    program = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from cni_flannel.resident.activation import passed_socket\n"
        f"environ = {environ}\n"
        "try:\n"
        "    found = passed_socket(environ, os.getpid())\n"
        "    print('nothing' if found is None else os.get_inheritable(3))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    fd = os.open("/dev/null", os.O_RDONLY) if listener is None else os.dup(listener.fileno())
    actions = [(os.POSIX_SPAWN_DUP2, fd, 3), (os.POSIX_SPAWN_DUP2, 3, 3)]
    out = os.memfd_create("out")
    actions.append((os.POSIX_SPAWN_DUP2, out, 1))
    pid = os.posix_spawn(
        sys.executable, [sys.executable, "-IBc", program], {}, file_actions=actions
    )
    status = os.waitpid(pid, 0)[1]
    said = os.pread(out, 4096, 0).decode().strip()
    os.close(out)
    os.close(fd)
    assert status == 0, said
    return said


OURS = "{'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}"


def test_a_passed_socket_is_taken_and_not_passed_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert passed(listener, OURS) == "False"


def test_what_was_passed_to_another_process_is_not_ours(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert passed(listener, "{'LISTEN_PID': '1', 'LISTEN_FDS': '1'}") == "nothing"
        assert passed(listener, "{}") == "nothing"


def test_what_is_no_listening_stream_socket_is_refused(tmp_path: Path) -> None:
    assert passed(None, OURS).startswith("descriptor 3 is no socket")
    with socket.socket(socket.AF_UNIX) as deaf, socket.socket(socket.AF_INET) as other:
        deaf.bind(str(tmp_path / "s"))
        assert "not a listening stream socket" in passed(deaf, OURS)
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert "not a listening stream socket" in passed(other, OURS)
    two = "{'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '2'}"
    assert "one socket is served" in passed(None, two)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001
    name = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name[1:]}" if abstract else name)
        activation.notify({"NOTIFY_SOCKET": name}, "READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nobody_is_told() -> None:
    activation.notify({}, "READY=1")


def test_everything_a_call_can_load_is_loaded_before() -> None:
    """Imports in functions of the per-pod path find their module there already."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import cni_flannel.resident.serve\n"
        "print(*[name for name in sys.modules if name.partition('.')[0] in sys.argv[1:]])\n"
    )
    ours = ("cni", "ipam", "cni_flannel")
    done = subprocess.run(
        [sys.executable, "-IBSc", program, *ours], capture_output=True, text=True, check=True
    )
    files = {file for folder in ours for file in (ROOT / folder).rglob("*.py")}
    every = {
        str(file.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for file in files
    }
    apart = {"cni_flannel.__main__", "ipam.__main__", "cni_flannel.kernel.handover"}
    assert every - set(done.stdout.split()) == apart
