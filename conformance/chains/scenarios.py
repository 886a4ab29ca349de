"""What is tried with a chain. Each scenario takes a node and a figure, and leaves the node clean.

Expectations are those of the specification and of the plugins' documents; none depends on how the
plugin under test does its work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netaddr import IPNetwork

from conformance.chains.node import HOST_PORT, LIMIT, MAC, NODE, OUTSIDE, POD_PORT, SOMAXCONN
from conformance.chains.traffic import Server, hello, is_reached, rate
from conformance.conflist import number
from conformance.runtime import PluginError

if TYPE_CHECKING:
    from conformance.chains.node import Node
    from conformance.conflist import Attachment, Conflist
    from conformance.stress.figure import Figure

_AMOUNT = 1_200_000  # bytes; one burst of them is not limited
_UNIQUE = ("cid-", "10.244.1.2", "fd00:f1:0:1::2", "veth", "bwp", "CNI-DN-")


def settle(node: Node, figure: Figure) -> dict[str, Any]:
    """One ADD and DEL; the state after it, which may hold what all attachments share only.

    That is a bridge, a lock file, empty chains: nothing that names the attachment or its address.
    """
    fresh = node.state()
    attachment = node.attachment("one", 9)
    node.runtime.add(node.conflist, attachment)
    node.runtime.delete(node.conflist, attachment)
    figure.count("attachments")
    for line in node.left(fresh):
        if any(mark in line for mark in _UNIQUE) or line.startswith("pods."):
            figure.fail(f"{node.conflist.version}: left by ADD and DEL: {line}")
    return node.state()


def run_traffic(node: Node, figure: Figure, normal: dict[str, Any]) -> None:
    """Two pods, one with everything asked for: results, packets, limits, CHECK; then nothing."""
    one, two = node.attachment("one"), node.attachment("two", plain=True)
    results = [node.runtime.add(node.conflist, each) for each in (one, two)]
    figure.count("attachments", 2)
    _judge_results(node, figure, results)
    with Server(node.space("one"), "one", POD_PORT), Server(node.space("two"), "two", POD_PORT):
        _reach(node, figure, results)
        if "bandwidth" in node.plugins:
            _limit(node, figure, results)
        if "firewall" in node.plugins:
            _filter(node, figure, results)
    if number(node.conflist.version) >= number("0.4.0"):
        _check(node, figure, one, two)
    for each in (one, two):
        node.runtime.delete(node.conflist, each)
        node.runtime.delete(node.conflist, each)  # once more: nothing to do is success
    if is_reached(node.space("outside"), NODE[0], HOST_PORT):
        figure.fail(f"{node.conflist.version}: the host port is still answered after DEL")
    _judge_left(node, figure, normal, "traffic")


def addresses(result: dict[str, Any]) -> list[str]:
    """Addresses of a result, without their prefix lengths."""
    return [str(IPNetwork(ip["address"]).ip) for ip in result["ips"]]


def _judge_results(node: Node, figure: Figure, results: list[dict[str, Any]]) -> None:
    """Compare the chain's results with each other and with the kernel."""
    for pod, result in zip(("one", "two"), results, strict=True):
        inside = [each for each in result["interfaces"] if each.get("sandbox")]
        link = node.world.state()["pods"][pod]["links"]["eth0"]
        told = [(each["name"], each["mac"], each["sandbox"]) for each in inside]
        if told != [("eth0", link["mac"], node.netns[pod])]:
            figure.fail(f"{node.conflist.version}: result says {told}, eth0 has {link['mac']}")
        if result["cniVersion"] != node.conflist.version:
            figure.fail(f"{node.conflist.version}: the result is of {result['cniVersion']}")
        if "tuning" in node.plugins and (link["mac"] == MAC) != (pod == "one"):
            figure.fail(f"{node.conflist.version}: tuning left {link['mac']} on pod {pod}")
    if "tuning" in node.plugins:
        text = node.world.pod_run("one", ["cat", "/proc/sys/net/core/somaxconn"]).stdout.strip()
        if text != SOMAXCONN:
            figure.fail(f"{node.conflist.version}: tuning's sysctl is {text}")


def _reach(node: Node, figure: Figure, results: list[dict[str, Any]]) -> None:
    """Pods from one another, from the node and from outside; the host port from everywhere."""
    nodes = NODE if node.dual else NODE[:1]
    ways = [("outside", address, HOST_PORT, "one") for address in nodes]
    ways += [("two", NODE[0], HOST_PORT, "one"), ("one", NODE[0], HOST_PORT, "one")]
    ways += [("", NODE[0], HOST_PORT, "one"), ("", "127.0.0.1", HOST_PORT, "one")]
    for here in ("one", "two", "", "outside"):
        for there, result in zip(("one", "two"), results, strict=True):
            ways += [(here, address, POD_PORT, there) for address in addresses(result)]
    for here, address, port, expected in ways:
        try:
            seen = hello(node.space(here), address, port)
        except OSError as error:
            seen = str(error)
        figure.count("connections")
        if seen != expected:
            where = here or "node"
            figure.fail(f"{node.conflist.version}: {where} -> {address} port {port}: {seen}")


def _limit(node: Node, figure: Figure, results: list[dict[str, Any]]) -> None:
    """Both directions of the limited pod near its limit, those of the other far above."""
    for pod, result in zip(("one", "two"), results, strict=True):
        for verb in ("give", "take"):
            seen = rate(node.space("outside"), addresses(result)[0], POD_PORT, verb, _AMOUNT)
            figure.progress(f"{node.conflist.version}: {pod} {verb} {seen / 1e6:.1f} Mbit/s")
            figure.count("connections")
            # A burst, free of charge, is up to a sixth of the amount; a busy machine is slower.
            fits = LIMIT / 4 < seen < LIMIT * 1.35 if pod == "one" else seen > LIMIT * 1.5
            if not fits:
                limit = f"limited to {LIMIT / 1e6:.0f}" if pod == "one" else "not limited"
                figure.fail(
                    f"{node.conflist.version}: pod {pod}, {limit}, {verb}: {seen / 1e6:.1f} Mbit/s"
                )


def _filter(node: Node, figure: Figure, results: list[dict[str, Any]]) -> None:
    """On a node that forwards nothing, pods reach others through firewall's rules alone."""
    policies = "iptables -P FORWARD {0}" + ("; ip6tables -P FORWARD {0}" if node.dual else "")
    node.world.run(["sh", "-c", policies.format("DROP")])
    with Server(node.space("outside"), "outside", POD_PORT):
        for address in OUTSIDE if node.dual else OUTSIDE[:1]:
            if hello(node.space("one"), address, POD_PORT) != "outside":
                figure.fail(f"{node.conflist.version}: firewall: one -> {address}")
            figure.count("connections")
        if is_reached(node.space("outside"), addresses(results[1])[0], POD_PORT):
            figure.fail(f"{node.conflist.version}: forwarding is not filtered: nothing was tested")
    node.world.run(["sh", "-c", policies.format("ACCEPT")])


def _check(node: Node, figure: Figure, one: Attachment, two: Attachment) -> None:
    """CHECK accepts what the chain made, a changed MAC included, and sees later changes."""
    for each in (one, two):
        node.runtime.check(_checkable(node, each), each)
        figure.count("checks")
    if "tuning" not in node.plugins:
        return
    node.world.run(["ip", "-n", "one", "link", "set", "eth0", "address", "02:00:5e:10:00:99"])
    figure.count("checks")
    try:
        node.runtime.check(_checkable(node, one), one)
        figure.fail(f"{node.conflist.version}: CHECK accepts a MAC that nobody gave")
    except PluginError as error:
        if error.plugin != node.plugins[0]:
            figure.fail(f"{node.conflist.version}: a wrong MAC is seen first by {error}")
    node.world.run(["ip", "-n", "one", "link", "set", "eth0", "address", MAC])
    node.runtime.check(_checkable(node, one), one)
    figure.count("checks")


def _checkable(node: Node, attachment: Attachment) -> Conflist:
    """Leave out of the list whose CHECK cannot succeed in containernetworking-plugins 1.1.1.

    portmap looks for the rules of both families wherever there are mappings, though the pod may
    have one, and in one list for both; bandwidth, where nothing is limited, ends in a panic.
    """
    broken = "portmap" if attachment.capabilities else "bandwidth"
    plugins = [plugin for plugin in node.conflist.plugins if plugin["type"] != broken]
    return node.conflist._replace(plugins=plugins)


def run_failures(node: Node, figure: Figure, normal: dict[str, Any], *, quick: bool) -> None:
    """Each plugin fails once at DEL and at ADD, before and after its work; then nothing is left.

    But not firewall after its ADD: at DEL it goes by the result, and of an ADD that has failed a
    runtime keeps none. `quick` is one DEL a plugin.
    """
    cases = [
        (plugin, command, when)
        for plugin in node.plugins
        for command in ("DEL", "ADD")
        for when in ("before", "after")
        if (plugin, command, when) != ("firewall", "ADD", "after")
    ]
    if quick:
        cases = [case for case in cases if case[1] == "DEL"][1::2]
    for count, (plugin, command, when) in enumerate(cases):
        what = f"{plugin} failing {when} its {command}"
        attachment = node.attachment("one", count)
        node.arm(plugin, command, when)
        seen = ""
        try:
            node.shimmed.add(node.conflist, attachment)
            figure.count("attachments")
            node.shimmed.delete(node.conflist, attachment)
        except PluginError as error:
            seen = f"{error.plugin} {error.command}"
        figure.count("failed once")
        if seen != f"{plugin} {command}":
            figure.fail(f"{node.conflist.version}: {what}: the runtime saw {seen!r}")
        try:
            node.shimmed.delete(node.conflist, attachment)
        except PluginError as error:
            figure.fail(f"{node.conflist.version}: {what}: then DEL: {error}")
        _judge_left(node, figure, normal, what)


def run_garbage(node: Node, figure: Figure, normal: dict[str, Any]) -> None:
    """GC takes what is not valid, cached or not, and only it; STATUS tells a missing file."""
    node.runtime.status(node.conflist)
    lost, cached, kept = (node.attachment("one", n, plain=True) for n in (1, 2, 3))
    kept = kept._replace(netns=node.netns["two"], container_id="cid-kept")
    result: dict[str, Any] = {}
    for each in (lost, cached, kept):
        # One that the runtime lost: it died within the chain, the container and its file are gone.
        plugins = node.conflist.plugins[: 1 if each is lost else None]
        result = node.runtime.add(node.conflist._replace(plugins=plugins), each)
        figure.count("attachments")
        if each is lost:
            (file,) = node.world.path("/var/lib/cni/results").iterdir()
            file.unlink()
            node.world.run(["ip", "-n", "one", "link", "del", "eth0"])
    for error in node.runtime.gc(node.conflist, [kept]):
        figure.fail(f"{node.conflist.version}: GC: {error}")
    figure.count("collections")
    leases = sorted(
        text.partition("\r\n")[0]
        for name, text in node.state()["files"].items()
        if name.startswith("/var/lib/cni/networks/cbr0/") and "\r\n" in text
    )
    if leases != ["cid-kept"] * (2 if node.dual else 1):
        figure.fail(f"{node.conflist.version}: after GC the leases are of {leases}")
    node.runtime.check(_checkable(node, kept), kept)
    with Server(node.space("two"), "two", POD_PORT):
        if hello(node.space("outside"), addresses(result)[0], POD_PORT) != "two":
            figure.fail(f"{node.conflist.version}: after GC the valid pod is not reached")
    for error in node.runtime.gc(node.conflist, []):
        figure.fail(f"{node.conflist.version}: GC: {error}")
    figure.count("collections")
    _judge_left(node, figure, normal, "GC")
    if node.plugins[0] == "flannel":
        _judge_status(node, figure)


def _judge_status(node: Node, figure: Figure) -> None:
    """Without the daemon's file no ADD can work, and STATUS says so with its code."""
    file = node.world.path("/run/flannel/subnet.env")
    text = file.read_text()
    file.unlink()
    try:
        node.runtime.status(node.conflist)
        figure.fail(f"{node.conflist.version}: STATUS is ready without a subnet file")
    except PluginError as error:
        if error.code not in {50, 51}:
            figure.fail(f"{node.conflist.version}: STATUS without a subnet file: {error}")
    file.write_text(text)
    node.runtime.status(node.conflist)


def _judge_left(node: Node, figure: Figure, normal: dict[str, Any], what: str) -> None:
    """Count what is left; each is a failure."""
    lines = node.left(normal)
    figure.count("leftovers", len(lines))
    for line in lines:
        figure.fail(f"{node.conflist.version}: after {what}: {line}")
