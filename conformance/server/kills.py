"""Thousands of calls while the resident process and the launchers are killed at random.

Several pods live at once, each attached and detached again and again. A call that nobody touched
succeeds, whatever became of the resident process under it; what it tells is true, and nobody else's
address. After one that was killed, or told by SIGTERM to end, DEL is called until one is let be, as
a runtime does; then nothing of the attachment is there. The orphan of a killed launcher may still
be at work in the resident process when that DEL comes. At rests and at the end the whole
node is compared.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from conformance.command import threads
from conformance.outcome import Outcome
from conformance.server.site import Site, options, wait_until
from conformance.state import entered
from conformance.stress.figure import Figure
from conformance.stress.scene import DATA
from conformance.stress.verdict import brief, complaints
from conformance.words import positive

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

PODS = tuple(f"kills{number}" for number in range(6))
_REST = 500  # calls from one comparison of the node to the next
_LATEST_S = 0.02  # a call has this long, at the most, before it is struck
_ORPHAN_S = 5.0  # patience with an orphan on a loaded machine
_PAUSES_S = (0.0, 0.4)  # of whoever kills the resident process
_ENDINGS = {0, 1, -signal.SIGKILL, -signal.SIGTERM}


class Kills:
    """The site, what its threads share, and the figure."""

    def __init__(self, site: Site, figure: Figure, seed: int, share: float) -> None:
        self.site = site
        self.figure = figure
        self.chance = random.Random(seed)
        self.share = share
        self.lock = threading.Lock()
        self.addresses: dict[str, str] = {}
        self.calls = 0
        self.longest_s = 0.0
        for pod in PODS:
            site.world.add_pod(pod)
        self.normal = site.normal = site.traits()

    def fail(self, text: str) -> None:
        with self.lock:
            self.figure.fail(text)

    # ----------------------------------------------------------------------------- one attachment

    def live(self, pod: str, number: int) -> None:
        """Carry one attachment through its life."""
        cid = f"cid-{pod}-{number}"
        try:
            added, touched = self.call("ADD", pod, cid)
            if added.status == 0:
                self._use(pod, cid, added)
            elif not touched:
                self.fail(f"ADD of {cid}: {brief(added)}")
            self._detach(pod, cid)
        except subprocess.TimeoutExpired as error:
            self.fail(f"{cid}: no end after {error.timeout:g} s")

    def _use(self, pod: str, cid: str, added: Outcome) -> None:
        """The result is true, and the address nobody else's."""
        result = added.result
        address = result["ips"][0]["address"]
        with self.lock:
            holder = self.addresses.setdefault(address, cid)
        if holder != cid:
            self.fail(f"{address}: {holder} and {cid}")
        checked, touched = self.call("CHECK", pod, cid, prevResult=result)
        if checked.status != 0 and not touched:
            self.fail(f"CHECK of {cid}: {brief(checked)}")

    def _detach(self, pod: str, cid: str) -> None:
        with self.lock:
            for address in [one for one, holder in self.addresses.items() if holder == cid]:
                del self.addresses[address]
        deleted, touched = self.call("DEL", pod, cid)
        while touched:
            deleted, touched = self.call("DEL", pod, cid)
        if deleted.status != 0:
            self.fail(f"DEL of {cid}: {brief(deleted)}")
        if not wait_until(lambda: not self._left(pod, cid), _ORPHAN_S):
            self.fail(f"after DEL of {cid}: {self._left(pod, cid)}")

    def _left(self, pod: str, cid: str) -> list[str]:
        """What of an attachment can be told from that of others at once: link, lease, state."""
        world = self.site.world
        with entered(world.path(f"/run/netns/{pod}")):
            links = {name for _, name in socket.if_nameindex()} - {"lo"}
        return [*sorted(links), *files_of(world.path(DATA), cid)]

    # --------------------------------------------------------------------------------- one call

    def call(self, command: str, pod: str, cid: str, **changes: Any) -> tuple[Outcome, bool]:
        """Call a launcher; what it left, and whether it was struck."""
        world = self.site.world
        with self.lock:
            self.calls += 1
            strikes = self.chance.random() < self.share
            after_s = self.chance.random() * _LATEST_S
            number = self.chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        start = time.monotonic()
        with subprocess.Popen(
            [*world.enter, world.program("flannel")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=world.environment(command, cid, "eth0", f"/run/netns/{pod}"),
        ) as process:
            stdin = json.dumps(self.site.conf | changes).encode()
            hits: list[float] = []
            striker = threading.Timer(after_s, _strike, (process, number, hits))
            if strikes:
                striker.start()
            try:
                out, err = process.communicate(stdin, timeout=self.site.deadline_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            striker.cancel()
        struck = bool(hits)
        done = Outcome(process.returncode, out.decode(), err.decode(errors="backslashreplace"))
        self._judge(command, cid, done, struck=struck, seconds=time.monotonic() - start)
        return done, struck

    def _judge(
        self, command: str, cid: str, done: Outcome, *, struck: bool, seconds: float
    ) -> None:
        """Count, and look at the form of the answer."""
        with self.lock:
            self.longest_s = max(self.longest_s, seconds)
            self.figure.count("calls")
            self.figure.count("launchers struck", int(struck))
        if not struck:
            lines = complaints(done, document=command == "ADD")
        else:
            lines = [] if done.status in _ENDINGS else [f"struck, it ended with {done.status}"]
        for line in lines:
            self.fail(f"{command} of {cid}: {line}")

    # ---------------------------------------------------------------------- who kills, who compares

    def kill_servers(self, end: threading.Event) -> None:
        """Kill the resident process now and then, and start another one, until the end."""
        while not end.wait(self.chance.uniform(*_PAUSES_S)):
            self.site.resident.restart()
            with self.lock:
                self.figure.count("resident processes killed")

    def compare(self) -> None:
        """Compare the node with how it was, nobody being attached."""
        self.site.settle()
        now = self.site.traits()
        for line in sorted(now - self.normal):
            self.fail(f"left after {self.calls} calls: {line}")
        for line in sorted(self.normal - now):
            self.fail(f"lost after {self.calls} calls: {line}")


def _strike(process: subprocess.Popen[bytes], number: int, hits: list[float]) -> None:
    hits.append(time.monotonic())  # before: who hears of the end must know
    process.send_signal(number)


def files_of(folder: Path, cid: str) -> list[str]:
    """Give the files of an attachment: its name begins their names, or what they hold."""
    found = []
    for file in folder.rglob("[!.]*"):
        try:
            if file.name.startswith(cid) or file.read_bytes().startswith(cid.encode()):
                found.append(str(file.relative_to(folder)))
        except (FileNotFoundError, IsADirectoryError):
            continue  # other pods come and go meanwhile
    return found


def run_lives(kills: Kills, calls: int) -> None:
    """Run lives up to a rest, a thread for each pod; the resident process is killed meanwhile."""
    end = threading.Event()
    killer = threading.Thread(target=kills.kill_servers, args=(end,), daemon=True)
    killer.start()

    def live(pod: str) -> None:
        while kills.calls < calls and len(kills.figure.failures) < 20:
            kills.live(pod, kills.calls)

    with threads(len(PODS)) as pool:
        list(pool.map(live, PODS))
    end.set()
    killer.join()


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("server-kills", __doc__ or "")
    parser.add_argument("--calls", type=positive, default=10_000)
    parser.add_argument("--share", type=float, default=0.3, help="of the launchers that are struck")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    names = ("calls", "launchers struck", "resident processes killed")
    figure = Figure("server-kills", names, as_json=args.json)
    with Site(args.bin_dir, "v4") as site:
        kills = Kills(site, figure, args.seed, args.share)
        while kills.calls < args.calls and not figure.failures:
            run_lives(kills, min(args.calls, kills.calls + _REST))
            kills.compare()
            figure.progress(f"{kills.calls} of {args.calls}")
        site.resident.forget()
        for line in site.judge_life():
            figure.fail(f"afterwards: {line}")
        figure.account(site.world)
    figure.note(f"the longest call took {kills.longest_s:.2f} s")
    if figure.failures:
        figure.note(f"--seed {args.seed}")
    return figure.finish()
