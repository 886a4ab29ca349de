"""The ``flannel`` plugin: attaches a pod to its node's subnet through a delegate.

Reads the node's ``subnet.env``, renders the delegate's configuration and hands the call on: to
the bridge of this package in the same process, to any other type as an executable.  The verbs
are plain functions of their arguments; nothing of the process changes.
Imports: the parts of this package, ``ipam``, the protocol package.
"""

from __future__ import annotations

from cni import errors
from cni.errors import AlreadyAttached, CNIError
from cni_flannel import delegate, netconf, scratch
from cni_flannel.bridge import plugin as bridge
from cni_flannel.netconf import VALID_ATTACHMENTS, invalid
from cni_flannel.scratch import Scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.types import Args, Plugin, Resident
    from cni_flannel.netconf import NetConf
    from ipam.subnet_env import SubnetEnv

ABOUT = "CNI plugin flannel (cni-flannel)"


def cmd_add(args: Args) -> Mapping[str, Any]:
    """Attach the container; the delegate's result in the shape of 1.1.0."""
    net_conf = netconf.parse(args.conf)
    env = _subnet_env(net_conf, net_conf.subnet_file_wait, args.resident)
    conf = delegate.build(net_conf, env)
    state = _state(args, net_conf)
    before = state.own()
    try:
        state.save(conf)
        wanted = (state.confirm, *args.wanted)
        return plugin_of(conf).cmd_add(args.replaced(conf=conf, wanted=wanted))
    except BaseException as error:
        # An attachment that lives already keeps the state it has. Another ADD may have finished
        # it just now: then the state is that one's, and was not there before.
        if before is not None or not isinstance(error, AlreadyAttached):
            _restore(args, state, before)
        raise


def cmd_del(args: Args) -> None:
    """Detach the container, from whatever has survived; the state file goes last."""
    net_conf = netconf.parse_for_removal(args.conf)
    state = _state(args, net_conf)
    stored = _stored(args, state)
    conf = delegate.renew(_conf_without_state(net_conf) if stored is None else stored, net_conf)
    try:
        plugin_of(conf).cmd_del(args.replaced(conf=conf))
    except CNIError as error:
        if stored is not None or conf["type"] == delegate.BRIDGE:
            raise
        # As good as certainly it has nothing: an ADD stores the state before it calls a delegate.
        args.note(f"DEL goes on: nothing is known of an attachment, and its delegate says: {error}")
    state.remove()


def cmd_check(args: Args) -> None:
    """Compare the attachment with its result and the kernel."""
    net_conf = netconf.parse(args.conf)
    conf = _state(args, net_conf).load()
    if conf is None:
        conf = delegate.build(net_conf, _subnet_env(net_conf, 0))
    conf = delegate.renew(conf, net_conf)
    plugin = plugin_of(conf)
    if plugin is not bridge and "prevResult" in conf:
        conf["prevResult"] = delegate.with_gateways(conf["prevResult"])
    plugin.cmd_check(args.replaced(conf=conf))


def cmd_gc(args: Args) -> None:
    """Remove what belongs to attachments that the runtime does not list."""
    from cni_flannel import garbage  # ADD does not pay for the other verbs

    net_conf = netconf.parse_for_removal(args.conf)
    conf = delegate.renew(_conf_without_state(net_conf), net_conf)
    if net_conf.raw.get(VALID_ATTACHMENTS) is not None:
        conf[VALID_ATTACHMENTS] = net_conf.raw[VALID_ATTACHMENTS]
    garbage.collect(args.replaced(conf=conf), net_conf.data_dir, plugin_of)


def cmd_status(args: Args) -> None:
    """CNIError 50 while ``subnet.env`` is missing or broken, or an ADD would fail otherwise."""
    from cni_flannel.bridge.readiness import unavailable  # ADD does not pay for the other verbs

    net_conf = netconf.parse(args.conf)
    try:
        conf = delegate.build(net_conf, _subnet_env(net_conf, 0))
        scratch.require_room(net_conf.data_dir)
    except CNIError as error:
        raise unavailable(error) from error
    plugin_of(conf).cmd_status(args.replaced(conf=conf))


def plugin_of(conf: dict[str, Any]) -> Plugin:
    """The delegate of that configuration: our bridge, or an executable of the name."""
    kind = conf.get("type")
    if kind == delegate.BRIDGE:
        return bridge
    if type(kind) is not str or not kind:
        raise invalid(f"the delegate's configuration has no type: {netconf.shown(conf)}")
    if kind == "flannel":
        raise CNIError(
            errors.INVALID_NETWORK_CONFIG,
            "the delegate of flannel is flannel itself",
            "set 'type' of 'delegate' to another plugin, or leave it out for bridge",
        )
    from cni import invoke  # only foreign plugins are executed

    return invoke.Foreign(kind)


def _subnet_env(net_conf: NetConf, wait_s: float, resident: Resident | None = None) -> SubnetEnv:
    from ipam import subnet_env  # a DEL that finds its state file does without

    return subnet_env.load(net_conf.subnet_file, wait_s, resident)


def _state(args: Args, net_conf: NetConf) -> Scratch:
    return Scratch(net_conf.data_dir, net_conf.name, args.container_id, args.ifname)


def _stored(args: Args, state: Scratch) -> dict[str, Any] | None:
    """The state for a DEL; one that cannot be read keeps nothing from going but itself."""
    try:
        return state.load()
    except CNIError as error:
        args.note(f"DEL goes on without the state: {error}")
        return None


def _restore(args: Args, state: Scratch, before: dict[str, Any] | None) -> None:
    try:
        state.take_back(before)
    except CNIError as error:
        args.note(f"after a failed ADD: {error}")


def _conf_without_state(net_conf: NetConf) -> dict[str, Any]:
    """What ADD would render now, or without the node's subnet as much as DEL and GC need."""
    try:
        conf = delegate.build(net_conf, _subnet_env(net_conf, 0))
    except CNIError:
        # subnet.env is gone after a reboot: the leases and links are found without it.
        conf = delegate.rebuild(net_conf)
    # The daemon may have taken over masquerading since the ADD: look for rules all the same.
    return {**conf, "ipMasq": net_conf.delegate.get("ipMasq", True)}
