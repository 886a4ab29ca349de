"""However badly a plugin is started, stdout has one result or one CNI error, never nothing.

Each case is the ADD of a pod: by a runtime that gives little, on a machine that lacks something, or
of an installation that is damaged.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.attachments import CONF, leases
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from tests.kernel.conftest import Node, Outcome
    from tests.kernel.resident import Resident

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(600)]

MIB = 1 << 20
# prlimit(1)'s options. What is refused is so little that the interpreter could not say why.
LIMITS = {
    "nofile": [4, 5, 8, 16, 31, 32, 48],
    "as": [4 * MIB, 12 * MIB, 30 * MIB, 60 * MIB, 95 * MIB, 96 * MIB, 128 * MIB],
    "data": [4 * MIB, 16 * MIB, 32 * MIB, 64 * MIB],
    "stack": [256 << 10, 1 * MIB, 2 * MIB],
    "fsize": [0, 100],
    "nproc": [0],
    "memlock": [0],
    "core": [0],
    "sigpending": [0],
    "msgqueue": [0],
}


@pytest.fixture
def folder(plugins: Path, node: Node) -> Path:
    """The built folder; the node is ready for a pod."""
    built = (plugins / "flannel").resolve().parent
    if not (built / ".cni-flannel").exists():
        pytest.skip("the plugins under test are not frozen")
    node.write_subnet_env()
    node.add_pod("a")
    return built


def add(node: Node, *argv: str | Path, **variables: str) -> Outcome:
    environ = {**node.environment("ADD", "c1", "eth0", "/run/netns/a"), **variables}
    return node.run([str(word) for word in argv], json.dumps(CONF), environ, check=False)


def one_document(done: Outcome) -> bool:
    """Whether it was a success; AssertionError if stdout has neither a result nor an error."""
    document = json.loads(done.stdout)
    if done.status == 0:
        assert document["ips"]
    else:
        assert (done.status, bool(document["code"]), bool(document["msg"])) == (1, True, True)
    return done.status == 0


@pytest.mark.parametrize(
    ("limit", "value"), [(name, value) for name, values in LIMITS.items() for value in values]
)
def test_under_a_limit(node: Node, folder: Path, limit: str, value: int) -> None:
    done = add(node, "prlimit", f"--{limit}={value}", "--", folder / "flannel")
    print(limit, value, done.status, done.stdout[:400], done.stderr[-300:])
    one_document(done)


# What the caller's own loader is told, where `bad` is a folder of files that are no libraries.
LOADERS = {
    "an empty part": {"LD_LIBRARY_PATH": ""},
    "empty parts": {"LD_LIBRARY_PATH": "::/nonexistent:"},
    "a folder": {"LD_LIBRARY_PATH": "/run/bad"},
    "preload": {"LD_PRELOAD": "/run/bad/libc.so.6"},
    "audit": {"LD_AUDIT": "/run/bad/libz.so.1"},
    "trace": {"LD_TRACE_LOADED_OBJECTS": "1"},
    "debug": {"LD_DEBUG": "all", "LD_DEBUG_OUTPUT": "/run/bad/debug"},
    "bind now": {"LD_BIND_NOW": "1"},
    "tunables": {"GLIBC_TUNABLES": "glibc.rtld.nns=0:glibc.malloc.check=3"},
    "python": {"PYTHONHOME": "/run/bad", "PYTHONPATH": "/run/bad", "PYTHONMALLOC": "debug"},
    "locale": {"LC_ALL": "xx_YY.nonsense", "LOCPATH": "/run/bad", "LANGUAGE": "tlh"},
}


@pytest.mark.parametrize("variables", LOADERS.values(), ids=LOADERS)
def test_with_bad_libraries(node: Node, folder: Path, variables: dict[str, str]) -> None:
    """None of them reaches our loader; the working folder has bad libraries as well."""
    names = [path.name for path in (folder / ".cni-flannel" / "current").iterdir()]
    for name in names:
        node.write(f"/run/bad/{name}", "no library")
    environ = " ".join(f"{name}={text}" for name, text in variables.items())
    script = f"cd /run/bad; export {environ}; exec {folder}/flannel"
    done = add(node, "sh", "-c", script)
    assert one_document(done)
    assert done.stderr == ""
    assert sorted(path.name for path in node.path("/run/bad").iterdir()) == sorted(names)


MACHINES = {
    "no /proc": "umount -l /proc",
    "an empty /proc": "mount -t tmpfs none /proc",
    "no /dev/null": "mount -t tmpfs none /dev",
    "no /dev/null, and no stream but one": "mount -t tmpfs none /dev; exec 2>&-",
    "no stderr": "exec 2>&-",
    "no stdin": "exec 0<&-",
    "no stdin and stderr": "exec 0<&- 2>&-",
    "a read-only root": "mount -o remount,bind,ro /; mount -o remount,ro /run;"
    " mount -o remount,ro /var/lib",
    "read-only state": "mount -o remount,ro /var/lib",
    "no space": "mount -t tmpfs -o size=4k none /var/lib; head -c 4096 /dev/zero >/var/lib/full",
    "no inode": "mount -t tmpfs -o nr_inodes=1 none /var/lib",
    "no working folder": "mkdir /run/gone; cd /run/gone; rmdir /run/gone",
    "noexec /run": "mount -o remount,noexec /run",
    "not root": "exec setpriv --reuid 65534 --clear-groups --inh-caps=-all",
    "no capability": "exec setpriv --bounding-set=-all",
    "arguments": "set -- --version serve",
}
HOLDS = {"no stderr", "noexec /run", "no working folder", "no /dev/null"}


@pytest.mark.parametrize("trouble", MACHINES)
def test_on_a_machine_with(node: Node, folder: Path, trouble: str) -> None:
    script, found, command = MACHINES[trouble].partition("exec setpriv")
    last = f"exec setpriv{command} -- " if found else "exec "
    wanted = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
    arguments = ' "$@"' if trouble == "arguments" else ""
    done = add(node, *wanted, f"{script}\n{last}{folder}/flannel{arguments}", "sh")
    assert one_document(done) or trouble not in HOLDS
    assert "Traceback" not in done.stdout + done.stderr


# ------------------------------------------------------------------------------- what was installed


@pytest.fixture
def copy(node: Node, folder: Path) -> Path:
    """A copy of the pair that may be damaged; seen from here, it is in the node's /run/bin."""
    inside = node.path("/run/bin")
    shutil.copytree(folder, inside, symlinks=True)
    return inside


def refused(done: Outcome, *words: str) -> None:
    assert not one_document(done)
    assert done.error["code"] == 5
    text = f"{done.error['msg']} {done.error['details']}"
    assert "install it again" in text
    for word in words:
        assert word in text
    # what containerd takes for a pod that is gone
    assert "not found" not in text.lower()
    assert "no such file" not in text.lower()


@pytest.mark.parametrize("program", ["flannel", "host-local"])
def test_an_executable_that_was_copied_alone(node: Node, copy: Path, program: str) -> None:
    (copy / "alone").mkdir()
    shutil.copy(copy / program, copy / "alone" / program)
    refused(add(node, f"/run/bin/alone/{program}"), "/run/bin/alone/.cni-flannel/current")


def needed() -> list[str]:
    built = Path(__file__).resolve().parents[2] / "dist" / "cni-flannel" / ".cni-flannel"
    lines = (built / "current" / "needs").read_text().splitlines() if built.exists() else []
    return [line.split(" ")[1] for line in lines]


@pytest.mark.parametrize("how", ["missing", "empty", "cut off", "a folder", "a dead link"])
@pytest.mark.parametrize("name", [*needed(), "needs"])
def test_a_damaged_installation(node: Node, copy: Path, name: str, how: str) -> None:
    file = copy / ".cni-flannel" / "current" / name
    content = file.read_bytes()
    file.unlink()
    if how == "empty":
        file.touch()
    elif how == "cut off":
        file.write_bytes(content[:-1])
    elif how == "a folder":
        file.mkdir()
    elif how == "a dead link":
        file.symlink_to("nowhere")
    refused(add(node, "/run/bin/flannel"), name, "missing or damaged")


@pytest.mark.parametrize("how", ["missing", "dead", "a file", "long", "a loop"])
def test_current_leads_nowhere(node: Node, copy: Path, how: str) -> None:
    current = copy / ".cni-flannel" / "current"
    current.unlink()
    if how == "a file":
        current.touch()
    elif how != "missing":
        current.symlink_to({"dead": "gone", "long": "x" * 255, "a loop": "current"}[how])
    refused(add(node, "/run/bin/flannel"), "/run/bin/.cni-flannel/")


@pytest.mark.parametrize(
    "name", ["a:b;c", "a b", "a'b\"c", "a\\b", "$HOME", "a\nb", "\u00e9\u4e2d"]
)
def test_a_folder_of_any_name(node: Node, copy: Path, name: str) -> None:
    copy.rename(copy.parent / name)
    assert one_document(add(node, f"/run/{name}/flannel"))


def test_a_copy_beside_it_under_another_name(node: Node, copy: Path) -> None:
    shutil.copy(copy / "flannel", copy / "flannel.backup")
    assert one_document(add(node, "/run/bin/flannel.backup"))
    assert len(leases(node)) == 1


def test_somebody_holds_a_lock_on_the_folder_for_ever(node: Node, copy: Path) -> None:
    """Anybody may who can read it: no call fails for that."""
    assert copy.exists()
    held = ["flock", "--exclusive", "/run/bin/.cni-flannel/current", "/run/bin/flannel"]
    assert one_document(add(node, *held))


def test_a_large_conf_in_little_memory(node: Node, folder: Path) -> None:
    """Less than what it takes to read it, and a little more."""
    conf = json.dumps({**CONF, "large": [[n] for n in range(300_000)]})
    environ = node.environment("ADD", "c1", "eth0", "/run/netns/a")
    for size in (96, 104, 112, 128, 160):
        argv = ["prlimit", f"--as={size * MIB}", "--", str(folder / "flannel")]
        done = node.run(argv, conf, environ, check=False)
        if one_document(done):
            assert node.run([str(folder / "flannel")], conf, {**environ, "CNI_COMMAND": "DEL"})


@pytest.mark.parametrize("limit", ["--nofile=4", "--nofile=8", f"--as={12 * MIB}", "--fsize=0"])
def test_under_a_limit_beside_a_resident_process(resident: Resident, limit: str) -> None:
    """It is the launcher's own limit: the process that serves has another."""
    resident.start()
    done = add(resident.node, "prlimit", limit, "--", resident.launcher)
    one_document(done)


@pytest.mark.parametrize("trouble", ["no /proc", "no /dev/null", "no stderr", "no stdin"])
def test_beside_a_resident_process_with(resident: Resident, trouble: str) -> None:
    resident.start()
    script = f"{MACHINES[trouble]}\nexec {resident.launcher}"
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]
    one_document(add(resident.node, *argv))
