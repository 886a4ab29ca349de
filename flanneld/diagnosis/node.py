"""This node as a command sees it: what the daemon decided, what the kernel should hold, and does.

Works without a running daemon, from the state that it wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld import files, liveness, state, subnet_env, target
from flanneld.backend.registry import backend_for
from flanneld.diagnosis.subject import Subject
from flanneld.kernel import dump
from flanneld.kernel.difference import difference
from flanneld.rules.manager import Rules
from flanneld.rules.programs import RulesError
from flanneld.traffic import traffic
from netlink.handle import Handle

if TYPE_CHECKING:
    from flanneld.desired import AnyNetwork, Desired
    from flanneld.kernel.difference import Difference
    from flanneld.kernel.present import Present
    from flanneld.readiness import Cause
    from flanneld.state import State


@dataclass(frozen=True, slots=True)
class View:
    """All of it; ``rules`` are the faults of the traffic rules, one sentence each.

    ``mtu`` is that of pods; ``running`` whether the daemon that wrote the state is, ``answering``
    whether it says so itself; ``causes`` are what it finds wrong, as it last said.
    """

    state: State
    desired: Desired
    present: Present
    difference: Difference
    rules: tuple[str, ...]
    mtu: int
    running: bool
    answering: bool
    causes: tuple[Cause, ...]
    port: int

    @property
    def subject(self) -> Subject:
        """What is looked at."""
        known = self.state
        return Subject(
            known.conf, known.external, known.lease, known.peers, self.desired, self.port
        )

    @property
    def ready(self) -> bool:
        """Whether the daemon says that nothing is in the way of pods' packets."""
        return self.answering and not any(cause.blocks for cause in self.causes)


async def view(subnet_file: str) -> View:
    """Look at everything; StateError if the daemon never ran here, OSError, ConfigError."""
    known = state.load(subnet_file)
    backend = backend_for(known.conf)
    desired = target.plan(
        backend,
        known.lease,
        known.peers,
        known.external,
        known.identity,
        blackhole=known.settings.blackhole_route,
        earlier=_earlier(subnet_file),
    )
    said = _asked(subnet_file)
    with Handle() as handle:
        present = dump.read(handle, desired)
    return View(
        state=known,
        desired=desired,
        present=present,
        difference=difference(desired, present),
        rules=await _rules(known),
        mtu=backend.mtu(known.external),
        running=files.is_locked(state.lock_path(subnet_file)),
        answering=said is not None,
        causes=known.causes if said is None else said,
        port=backend.port,
    )


def _earlier(subnet_file: str) -> tuple[AnyNetwork, ...]:
    """Read the networks of the file; what keeps it from being read, the daemon tells."""
    try:
        return subnet_env.previous(subnet_file).networks
    except OSError:
        return ()


def _asked(subnet_file: str) -> tuple[Cause, ...] | None:
    """Ask the daemon what it finds wrong; None if it does not answer."""
    said = liveness.ask(liveness.path(subnet_file))
    try:
        return None if said is None else state.causes(said["causes"])
    except (KeyError, TypeError):  # it is of another version
        return None


async def _rules(known: State) -> tuple[str, ...]:
    wanted = traffic(known.conf, known.lease, known.settings)
    try:
        return tuple(await Rules(wanted, nftables=known.conf.nftables).check())
    except RulesError as error:
        return (str(error),)
