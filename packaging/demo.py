"""Two pods on one node, attached by the built plugins, reach each other. Run by `./build.sh demo`.

First by the frozen pair, a process for each call; then in resident mode, by launchers that hand the
calls to one process; at last that process is killed, and the launchers do the calls themselves.
The node is private: this program starts itself again in network and mount namespaces of its own,
with empty /run and /var/lib, as root or as root of a user namespace. They end with it, so that
nothing is left behind however it ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

DIST = Path(__file__).resolve().parents[1] / "dist"
PLUGINS = DIST / "cni-flannel"
DAEMON = DIST / "flanneld" / "flanneld"
PODS = ("blue", "green")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = "10.244.0.0/16"
SUBNET_ENV = Path("/run/flannel/subnet.env")
DIES_TOO = ("setpriv", "--pdeathsig", "KILL")  # with this program, however that ends
PATIENCE_S = 30.0
CONF = {
    "cniVersion": "1.0.0",
    "name": "cbr0",
    "type": "flannel",
    "delegate": {"hairpinMode": True, "isDefaultGateway": True},
}


class Pod(NamedTuple):
    """One attached pod, as the result of its ADD names things."""

    name: str
    address: str
    gateway: str
    host_veth: str
    mac: str


def main() -> None:
    if sys.argv[1:] != ["--inside"]:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *user, "--net", "--mount", "--propagation", "private"]
        os.execvp(command[0], [*command, sys.executable, "-I", "-u", __file__, "--inside"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    make_node()
    daemon = start_daemon()
    failed = live("ADD, a process for each call", drawn=True)
    with resident_process() as process:
        failed |= live("ADD, in resident mode")
        process.kill()
        process.wait()
        failed |= live("ADD, the resident process killed with SIGKILL")
    stop(daemon)
    sys.exit(failed)


def live(title: str, *, drawn: bool = False) -> bool:
    """Attach two pods, let them reach each other, detach them; whether anything failed."""
    heading(title)
    failed = True
    try:
        pods = [attach(name) for name in PODS]
        heading("ping")
        failed = not all([ping(*pods), ping(*reversed(pods)), *map(ping_gateway, pods)])
        if drawn:
            draw(pods)
    finally:
        heading("DEL")
        detached = [detach(name) for name in PODS]
    return leftovers() or not all(detached) or failed


@contextmanager
def resident_process() -> Iterator[subprocess.Popen[str]]:
    """Start `flannel serve` for as long as this lasts; it ends with the demonstration."""
    heading("flannel serve")
    process = subprocess.Popen(
        [*DIES_TOO, str(PLUGINS / "flannel"), "serve", "--log-calls"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    print(f"  {process.stderr.readline()}", end="")
    try:
        yield process
    finally:
        process.kill()
        said = process.communicate()[1]
        heading("what the resident process has said")
        print(indented(said), end="\n\n")


# ---------------------------------------------------------------------------------------- the story


def make_node() -> None:
    """Empty /run and /var/lib, and an uplink, to which other nodes would be connected."""
    for folder in ("/run", "/var/lib"):
        run("mount", "-t", "tmpfs", "demo", folder)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "uplink", "type", "bridge")
    run("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
    run("ip", "link", "set", "uplink", "up")


def start_daemon() -> subprocess.Popen[str]:
    """Start flanneld without a server for its leases, and wait until it is ready."""
    command = [str(DAEMON), "--subnet-mgr", "local", "--network", NETWORK]
    command += ["--iface", "uplink", "--ip-masq"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("/run/notify")
        manager.settimeout(PATIENCE_S)
        environ = {"PATH": PATH, "NOTIFY_SOCKET": "/run/notify"}
        daemon = subprocess.Popen(
            [*DIES_TOO, *command], stderr=subprocess.PIPE, text=True, env=environ
        )
        try:
            while manager.recv(4096) != b"READY=1":
                pass
        except TimeoutError:
            daemon.kill()
            sys.exit(f"  flanneld does not get ready:\n{indented(daemon.communicate()[1])}")
    heading(" ".join(["flanneld", *command[1:]]))
    heading(f"{SUBNET_ENV}, as it has written it")
    print(indented(SUBNET_ENV.read_text()))
    heading("the network configuration")
    print(indented(json.dumps(CONF, indent=2)))
    return daemon


def stop(daemon: subprocess.Popen[str]) -> None:
    """End flanneld, and show what it said if it did not end well."""
    daemon.terminate()
    _, log = daemon.communicate()
    if daemon.returncode:
        print(indented(log))


def attach(name: str) -> Pod:
    """Make a pod's network namespace and attach it."""
    run("ip", "netns", "add", name)
    status, result, milliseconds = plugin("ADD", name)
    if status != 0:
        sys.exit(f"  ADD of {name} failed:\n{indented(json.dumps(result, indent=2))}")
    host_veth, pod_end = result["interfaces"][1:3]
    ip = result["ips"][0]
    pod = Pod(name, ip["address"].split("/")[0], ip["gateway"], host_veth["name"], pod_end["mac"])
    eth0 = f"eth0 {ip['address']}, {pod_end['mac']}, gateway {pod.gateway}"
    print(f"  {name:<6} {f'{eth0}, on the node {pod.host_veth}':<84}{milliseconds:5.1f} ms")
    return pod


def ping(source: Pod, target: Pod) -> bool:
    return reach(source, target.name, target.address)


def ping_gateway(source: Pod) -> bool:
    return reach(source, "gateway", source.gateway)


def reach(source: Pod, name: str, address: str) -> bool:
    """Ping an address from a pod and say how it went."""
    command = ["ip", "netns", "exec", source.name, "ping", "-n", "-c", "1", "-W", "2", address]
    done = run(*command, check=False)
    trip = done.stdout.partition("time=")[2].partition("\n")[0] or "no answer"
    print(f"  {source.name:<6} {source.address:<12} -> {name:<8}{address:<12} {trip}")
    return done.returncode == 0


def draw(pods: list[Pod]) -> None:
    """Draw the network, with the names and addresses that it has."""
    heading("the network")
    gateway = f"cni0 {pods[0].gateway}/24, mtu 1450"
    width = 26
    left, right = pods

    def row(*cells: str) -> None:
        print("   " + "      ".join(f"{cell:^{width}}" for cell in cells).rstrip())

    edge = "+" + "-" * (width - 2) + "+"

    def box(*cells: str) -> list[str]:
        return [f"|{cell:^{width - 2}}|" for cell in cells]

    row(edge, edge)
    row(*box(f"pod {left.name}", f"pod {right.name}"))
    row(*box(f"eth0 {left.address}", f"eth0 {right.address}"))
    row(*box(left.mac, right.mac))
    row(edge, edge)
    row("|", "|")
    row(left.host_veth, right.host_veth)
    row("|", "|")
    whole = 2 * width + 6
    print("   +" + "-" * (whole - 2) + "+")
    print(f"   |{gateway:^{whole - 2}}|")
    print("   +" + "-" * (whole - 2) + "+")
    print(f"   {'the node, which routes 10.244.0.0/16 between nodes':^{whole}}".rstrip())


def detach(name: str) -> bool:
    """Detach a pod; one that was never attached is fine too. Whether it went well."""
    status, result, milliseconds = plugin("DEL", name)
    run("ip", "netns", "del", name, check=False)
    print(f"  {name:<6} {'eth0, its address and its state are gone':<84}{milliseconds:5.1f} ms")
    if status != 0:
        print(indented(json.dumps(result, indent=2)))
    return status == 0


def leftovers() -> bool:
    """Say what is left of the pods; whether anything is."""
    ports = json.loads(
        run("ip", "-j", "link", "show", "master", "cni0", check=False).stdout or "[]"
    )
    leases = [path.name for path in Path("/var/lib/cni/networks/cbr0").glob("10.*")]
    states = [path.name for path in Path("/var/lib/cni/flannel").glob("*")]
    left = [port["ifname"] for port in ports if port] + leases + states
    print(f"  left on the node: {', '.join(left) or 'no interface, no lease, no state file'}\n")
    return bool(left)


# ------------------------------------------------------------------------------------------ helpers


def plugin(command: str, pod: str) -> tuple[int, dict[str, Any], float]:
    """Call flannel as a runtime does: exit status, what it printed, milliseconds."""
    program = str(PLUGINS / "flannel")
    environ = {
        "PATH": PATH,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"demo-{pod}",
        "CNI_NETNS": f"/run/netns/{pod}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(PLUGINS),
    }
    stdin = os.memfd_create("stdin")
    stdout = os.memfd_create("stdout")
    os.write(stdin, json.dumps(CONF).encode())
    os.lseek(stdin, 0, os.SEEK_SET)
    redirections = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    start = time.perf_counter()
    pid = os.posix_spawn(program, [program], environ, file_actions=redirections)
    _, status = os.waitpid(pid, 0)
    milliseconds = (time.perf_counter() - start) * 1000
    text = os.pread(stdout, 1 << 20, 0)
    os.close(stdin)
    os.close(stdout)
    return os.waitstatus_to_exitcode(status), json.loads(text or "{}"), milliseconds


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program of the system with its output captured."""
    environ = {"PATH": PATH}
    return subprocess.run(command, check=check, capture_output=True, text=True, env=environ)


def heading(text: str) -> None:
    print(f"\n{text}")


def indented(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted: the node has ended, and with it all that was on it", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
