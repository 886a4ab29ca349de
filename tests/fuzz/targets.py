"""Every reader of outside input, with what is thrown at it and the one sentence it must obey.

A target is a hypothesis strategy and a check. The check calls the reader; only the documented
exception may come out, and what was read must hold together. The same targets serve pytest (a short
form), `python -m tests.fuzz` (many inputs) and atheris (`tests/fuzz/harness.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from cni import attachment, cidr, cniargs, errors, skel, version, wire
from cni.errors import CNIError
from cni.types import Args
from cni_flannel import delegate, netconf, scratch
from cni_flannel.bridge import conf as bridge_conf
from conformance.stress import calls, noise
from flanneld.kernel import entries, vxlan
from ipam import conf as ipam_conf
from ipam import lease, request, subnet_env
from ipam import plugin as host_local
from netlink import inet, link, neighbour, nlmsg, port

if TYPE_CHECKING:
    from collections.abc import Callable

CODES = {value for name, value in vars(errors).items() if name.isupper() and type(value) is int}
_NODE = subnet_env.parse(calls.subnet_env_of_a_node(), "subnet.env")
_LIKE_JSON = st.text(
    alphabet='{}[]":,\\u0123456789.eE+-dDfF \t\ntruefalsnul\x00\x7f\xe9\ud800', max_size=40
)


_OF_THE_DAEMON = (
    vxlan.decode,
    entries.decode_address,
    entries.decode_neighbour,
    entries.decode_forward,
    entries.decode_route,
)


class Target(NamedTuple):
    """What to throw, and the check that takes it."""

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]


def refused(call: Callable[[], Any]) -> Any:
    """What a call returns; None when it refuses with a code of the table, in proper words."""
    try:
        return call()
    except CNIError as error:
        problem = error
    assert problem.code in CODES - {errors.INTERNAL, errors.UNKNOWN_CONTAINER}, problem
    assert problem.msg, problem
    json.dumps(problem.to_json("1.1.0")).encode()
    wire.dumps(problem.to_json("1.1.0"))
    return None


def check_wire(data: bytes) -> None:
    """JSON in, the same value again after writing it; or ValueError."""
    try:
        value = wire.loads(data)
    except ValueError:
        return
    assert wire.loads(wire.dumps(value)) == value
    assert wire.loads(wire.dumps_pretty(value)) == value
    wire.dumps(value).encode()


def check_flannel(document: tuple[Any, str]) -> None:
    """A conf and a subnet.env in, a delegate's conf out that can be written; or a code."""
    conf, text = document
    if not isinstance(conf, dict):
        return
    net_conf = refused(lambda: netconf.parse(conf))
    if net_conf is None:
        return
    env = refused(lambda: subnet_env.parse(text, "subnet.env"))
    for render in (
        lambda: delegate.rebuild(net_conf),
        lambda: delegate.build(net_conf, env or _NODE),
    ):
        rendered = refused(render)
        if rendered is not None:
            assert rendered["name"] == net_conf.name
            wire.dumps(delegate.renew(rendered, net_conf))


def check_bridge(conf: Any) -> None:
    """A delegate's conf in; ADD takes it or refuses, and DEL never gives it up for less."""
    if not isinstance(conf, dict):
        return
    conf = {"name": "cbr0", **conf}  # none comes this far without one
    args = _args(conf)
    taken = refused(lambda: bridge_conf.parse(args))
    left = refused(lambda: bridge_conf.RemovalConf(conf))
    assert taken is None or left is not None


def check_ipam(document: tuple[Any, str]) -> None:
    """host-local's conf and CNI_ARGS in, ranges out whose addresses lie in them; or a code."""
    conf, cni_args = document
    if not isinstance(conf, dict):
        return
    parsed = refused(lambda: ipam_conf.Conf(conf))
    if parsed is None:
        return
    asked = refused(lambda: request.read_request(parsed, cni_args, lambda: _NODE))
    if asked is not None:
        wire.dumps(asked.routes)
        assert all(one.family in {4, 6} for one in asked.range_sets)


def check_subnet_env(text: str) -> None:
    """Lines in, subnets within their networks out; or a code."""
    env = refused(lambda: subnet_env.parse(text, "subnet.env"))
    if env is not None:
        assert 0 <= env.mtu <= 65535
        assert env.subnet is None or any(one.contains(env.subnet.address) for one in env.networks)


def check_nlmsg(data: bytes) -> None:
    """Bytes in, messages and attributes out; or ValueError."""
    decoders = (link.Link, inet.InterfaceAddress, inet.Route, neighbour.Neighbour, port.PortVLAN)
    for part in (data, data[16:]):
        try:
            nlmsg.parse_attrs(part)
        except ValueError:
            continue
    try:
        messages = nlmsg.unpack(data)
    except ValueError:
        return
    for message in messages:
        for decode in (*(one.decode for one in decoders), nlmsg.refusal, *_OF_THE_DAEMON):
            try:
                decode(message)
            except (ValueError, nlmsg.NetlinkError):
                continue


def check_lease(data: bytes) -> None:
    """A lease file in, its owner out, in words that could be file names; or None."""
    owner = lease.owner_of(data)
    assert owner is None or not any(set("/\0") & set(part) for part in owner)


def check_cidr(text: str) -> None:
    """Text in, an address that reads back as itself; or ValueError."""
    for parse in (cidr.parse_address, cidr.parse_prefix):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert parse(str(value)) == value


def check_version(document: tuple[Any, Any]) -> None:
    """A result of any version in, the same in every version out; or a code."""
    result, named = document
    decoded = refused(lambda: version.decode(result, named))
    refused(lambda: version.prev_result({"cniVersion": named, "prevResult": result}))
    if decoded is not None:
        for wanted in noise.VERSIONS:
            converted = refused(lambda wanted=wanted: version.convert(decoded, wanted))  # type: ignore[misc]
            if converted is not None:
                wire.dumps_pretty(converted)


def check_arguments(text: str) -> None:
    """CNI_ARGS, a link's alias in; known words out, or a code, or None."""
    known = refused(lambda: cniargs.parse(text, ("IP", "MAC")))
    assert known is None or set(known) <= {"IP", "MAC"}
    found = attachment.parse_alias(text)
    assert found is None or isinstance(found.container_id, str)


def check_state(data: bytes) -> None:
    """A state file in, a conf with a type out; or None."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        conf = scratch.read(file.name)
    assert conf is None or conf["type"]


def check_call(call: calls.Call) -> None:
    """A whole call of host-local, in this process: one JSON document or nothing, a code."""
    folder = tempfile.mkdtemp(prefix="fuzz-")
    try:
        environ = {"CNI_COMMAND": call.verb, "CNI_CONTAINERID": "cid-fuzz", "CNI_IFNAME": "eth0"}
        environ |= {"CNI_NETNS": "/dev/null", "CNI_PATH": "/none"}
        environ |= {key: value for key, value in call.environ.items() if value is not None}
        os.makedirs(f"{folder}/cbr0")
        for name, content in call.leases.items():
            with open(f"{folder}/cbr0/{name}", "wb") as file:
                file.write(content)
        notes: list[str] = []
        status, output = skel.call(
            host_local, environ, _in_folder(call.stdin, folder), notes.append
        )
        if status == 0:
            assert not output or isinstance(json.loads(output), dict)
        else:
            error = json.loads(output)
            assert status == 1
            assert error["code"] in CODES - {errors.INTERNAL}, error
    finally:
        shutil.rmtree(folder)


def _in_folder(stdin: bytes, folder: str) -> bytes:
    """A conf whose leases are in a folder of ours; anything else as it is."""
    try:
        conf = json.loads(stdin)
        ipam = {
            **{k: v for k, v in conf["ipam"].items() if k.lower() != "datadir"},
            "dataDir": folder,
        }
        others = {k: v for k, v in conf.items() if k.lower() not in {"ipam", "datadir"}}
        return json.dumps({**others, "ipam": ipam}).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, KeyError, AttributeError):
        return b"{}" if b'"ipam"' in stdin.lower() else stdin


def _args(conf: dict[str, Any]) -> Args:
    return Args(
        command="ADD",
        container_id="cid-fuzz",
        netns="/run/netns/fuzz",
        ifname="eth0",
        cni_args="",
        path="/none",
        conf=conf,
        environ={},
        note=lambda _text: None,
    )


_BYTES = st.binary(max_size=80)
_ENV_TEXT = calls.subnet_envs.map(lambda data: data.decode("utf-8", "replace"))
_CIDR_TEXT = st.one_of(
    noise.addresses, st.text("0123456789abcdef.:/%x-+ ", max_size=30), st.text(max_size=8)
)
_IPAM_CONFS = st.fixed_dictionaries(
    {"cniVersion": st.sampled_from(noise.VERSIONS), "name": st.just("cbr0")},
    optional={
        "ipam": noise.mostly(noise.ipams),
        "args": noise.values,
        "runtimeConfig": noise.mostly(noise.runtime_configs),
    },
)
TARGETS = {
    "wire": Target(
        _BYTES | _LIKE_JSON.map(lambda t: t.encode("utf-8", "surrogatepass")) | noise.stdins,
        check_wire,
    ),
    "flannel": Target(st.tuples(noise.confs | noise.values, _ENV_TEXT), check_flannel),
    "bridge": Target(noise.delegates | noise.values, check_bridge),
    "ipam": Target(st.tuples(_IPAM_CONFS | noise.values, st.text(max_size=12)), check_ipam),
    "subnet.env": Target(_ENV_TEXT | st.text(max_size=60), check_subnet_env),
    "nlmsg": Target(calls.datagrams, check_nlmsg),
    "lease": Target(
        _BYTES | st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace")), check_lease
    ),
    "cidr": Target(_CIDR_TEXT, check_cidr),
    "version": Target(
        st.tuples(noise.results | noise.values, st.sampled_from(noise.VERSIONS) | noise.words),
        check_version,
    ),
    "arguments": Target(
        st.text("IPMAC=;IgnoreUk1w true:fls \x00", max_size=30) | st.text(max_size=20),
        check_arguments,
    ),
    "state": Target(noise.stdins | _BYTES, check_state),
    "call": Target(calls.calls, check_call),
}
