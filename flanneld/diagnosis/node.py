"""This node as a command sees it: what the daemon decided, what the kernel should hold, and does.

Works without a running daemon, from the state that it wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld import files, state, subnet_env, target
from flanneld.backend.registry import backend_for
from flanneld.kernel import dump
from flanneld.kernel.difference import difference
from flanneld.rules.manager import Rules
from flanneld.rules.programs import RulesError
from flanneld.traffic import traffic
from netlink.handle import Handle

if TYPE_CHECKING:
    from flanneld.desired import Desired
    from flanneld.kernel.difference import Difference
    from flanneld.kernel.present import Present
    from flanneld.state import State


@dataclass(frozen=True, slots=True)
class View:
    """All of it; ``rules`` are the faults of the traffic rules, one sentence each.

    ``mtu`` is that of pods; ``running`` whether the daemon that wrote the state is.
    """

    state: State
    desired: Desired
    present: Present
    difference: Difference
    rules: tuple[str, ...]
    mtu: int
    running: bool


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
        earlier=subnet_env.previous(subnet_file).networks,
    )
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
    )


async def _rules(known: State) -> tuple[str, ...]:
    wanted = traffic(known.conf, known.lease, known.settings)
    try:
        return tuple(await Rules(wanted, nftables=known.conf.nftables).check())
    except RulesError as error:
        return (str(error),)
