"""What ``iptables-save`` printed, as chains.  Pure.

Matches that say what a packet is are read; any other (ipset, a rate, a string) makes its rule one
of which is not known whom it meets.
"""

from __future__ import annotations

import shlex
from ipaddress import ip_address, ip_network, summarize_address_range
from itertools import pairwise
from typing import TYPE_CHECKING

from flanneld.firewall import packet as on
from flanneld.firewall.chains import Base, Rule, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flanneld.firewall.chains import Act
    from flanneld.firewall.packet import Condition

_PRIORITY = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_ACTS: dict[str, Act] = {
    "ACCEPT": "accept",
    "DROP": "drop",
    "REJECT": "drop",
    "RETURN": "return",
    "DNAT": "translate",
    "SNAT": "translate",
    "MASQUERADE": "translate",
    "REDIRECT": "translate",
    "NETMAP": "translate",
    "MARK": "mark",
    "TPROXY": "unknown",
    "QUEUE": "unknown",
    "NFQUEUE": "unknown",
    "SYNPROXY": "unknown",
    "TARPIT": "drop",
}
_SILENT = {"LOG", "NFLOG", "ULOG", "TRACE", "CT", "NOTRACK", "CONNMARK", "SET", "TCPMSS", "AUDIT"}
_DEVICES = {"-i": on.comes_in, "-o": on.goes_out}
_SIDES = {"-s": on.source, "-d": on.target}


def table(tool: str, command: str, version: int, name: str, printed: str) -> Table | None:
    """Read one table; None if it was not printed: there is none, or it is not iptables' own."""
    chains: dict[str, list[Rule]] = {}
    bases: list[Base] = []
    inside = False
    for line in printed.splitlines():
        if line.startswith("*"):
            inside = line[1:].strip() == name
        elif inside and line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            chains[chain] = []
            if chain in _HOOKS:
                bases.append(_base(name, chain, policy))
        elif inside and line.startswith("-A "):
            chain, rule = _rule(line.strip(), name, command)
            chains.setdefault(chain, []).append(rule)
    if not chains:
        return None
    rules = {chain: tuple(rules) for chain, rules in chains.items()}
    return Table(tool, name, frozenset({version}), rules, tuple(bases), command)


def _base(table: str, chain: str, policy: str) -> Base:
    if table == "nat":
        priority = -100 if chain in {"PREROUTING", "OUTPUT"} else 100
        return Base(chain, chain.lower(), priority, policy.lower(), kind="nat")
    return Base(chain, chain.lower(), _PRIORITY.get(table, 0), policy.lower())


def _rule(line: str, table: str, command: str) -> tuple[str, Rule]:
    """Read a line; what is not understood makes a condition that is not known."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    chain, rest = words[1], words[2:]
    at = next((n for n, word in enumerate(rest) if word in {"-j", "-g"}), len(rest))
    target, options = (rest[at + 1 : at + 2] or [""])[0], rest[at + 2 :]
    deletion = f"{command} -t {table} -D {line.removeprefix('-A ')}"
    act: Act = _ACTS.get(target) or ("go on" if target in _SILENT or not target else "jump")
    if act == "jump" and rest[at] == "-g":
        act = "goto"
    return chain, Rule(
        text=line,
        conditions=tuple(_conditions(rest[:at])),
        act=act,
        to=target if act in {"jump", "goto"} else "",
        mark=_mark(options) if act == "mark" else None,
        targets=tuple(_after(options, "--to-destination")) if target == "DNAT" else (),
        deletion=deletion,
    )


def _after(words: list[str], option: str) -> Iterator[str]:
    yield from (value for word, value in pairwise(words) if word == option)


def _mark(options: list[str]) -> tuple[int, int] | None:
    """Give the bits that are kept of a mark, and those that are turned then."""
    for word, value in pairwise(options):
        bits, _, mask = value.partition("/")
        try:
            if word == "--set-xmark":
                return ~int(mask or "0xffffffff", 0) & 0xFFFFFFFF, int(bits, 0)
        except ValueError:
            return None
    return None


def _conditions(words: list[str]) -> Iterator[Condition]:
    """Read the matches of a rule, each an option, its values, and perhaps ``!`` before it."""
    turned = False
    while words:
        word = words.pop(0)
        if word == "!":
            turned = True
            continue
        if word == "--comment":
            del words[:1]
            continue
        if word == "-m":  # the module's options follow; a module without any says nothing
            module = words.pop(0) if words else ""
            if module not in _MODULES:
                yield on.unknown
            continue
        values = []
        while words and not words[0].startswith("-") and words[0] != "!":
            values.append(words.pop(0))
        condition = _condition(word, values[0] if values else "")
        yield on.negated(condition) if turned else condition
        turned = False


_MODULES = {
    "addrtype",
    "comment",
    "conntrack",
    "icmp",
    "icmp6",
    "iprange",
    "mark",
    "multiport",
    "physdev",
    "sctp",
    "state",
    "tcp",
    "udp",
}


def _condition(option: str, value: str) -> Condition:
    read = _OPTIONS.get(option)
    try:
        return on.unknown if read is None else read(value)
    except ValueError:
        return on.unknown


def _networks(side: str) -> Callable[[str], Condition]:
    return lambda value: on.any_of(_SIDES[side](ip_network(one)) for one in value.split(","))


def _range(side: str) -> Callable[[str], Condition]:
    def read(value: str) -> Condition:
        first, _, last = value.partition("-")
        networks = summarize_address_range(ip_address(first), ip_address(last or first))
        return on.any_of(map(_SIDES[side], networks))

    return read


def _device(option: str) -> Callable[[str], Condition]:
    return lambda value: _DEVICES[option](f"{value[:-1]}*" if value.endswith("+") else value)


def _protocol(value: str) -> Condition:
    named = {"all": "", "0": "", "ipv6-icmp": "icmpv6", "icmp6": "icmpv6", "6": "tcp", "17": "udp"}
    name = named.get(value, value)
    return on.of_protocol(name) if name else on.all_of(())


def _ports(value: str, make: Callable[[int, int], Condition]) -> Condition:
    return on.any_of(_span(one, make) for one in value.split(","))


def _span(text: str, make: Callable[[int, int], Condition]) -> Condition:
    first, colon, last = text.partition(":")
    return make(int(first or 0), int(last or 65535) if colon else int(first))


def _any_ports(value: str) -> Condition:
    return on.any_of([_ports(value, on.to_ports), _ports(value, on.from_ports)])


def _states(value: str) -> Condition:
    return on.in_state(value.lower().split(","))


def _marked(value: str) -> Condition:
    bits, _, mask = value.partition("/")
    return on.marked(int(bits, 0), int(mask or "0xffffffff", 0))


def _kind(local: Condition) -> Callable[[str], Condition]:
    def read(value: str) -> Condition:
        kinds = set(value.split(","))
        ways = [local] if "LOCAL" in kinds else []
        ways += [on.negated(local)] if "UNICAST" in kinds else []
        return on.any_of(ways)

    return read


def _some(_: str) -> Condition:
    return lambda _: on.Match.SOME


_OPTIONS: dict[str, Callable[[str], Condition]] = {
    "-s": _networks("-s"),
    "-d": _networks("-d"),
    "--src-range": _range("-s"),
    "--dst-range": _range("-d"),
    "-i": _device("-i"),
    "-o": _device("-o"),
    "-p": _protocol,
    "--dport": lambda value: _ports(value, on.to_ports),
    "--sport": lambda value: _ports(value, on.from_ports),
    "--dports": lambda value: _ports(value, on.to_ports),
    "--sports": lambda value: _ports(value, on.from_ports),
    "--ports": _any_ports,
    "--ctstate": _states,
    "--state": _states,
    "--mark": _marked,
    "--dst-type": _kind(on.to_host),
    "--src-type": _kind(on.from_host),
    "--physdev-is-bridged": lambda _: on.never,
    "--icmp-type": _some,
    "--icmpv6-type": _some,
    "--tcp-flags": _some,
    "--syn": _some,
    "-f": lambda _: on.never,
}
