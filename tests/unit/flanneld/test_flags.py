"""The command line: Go's syntax, FLANNELD_* in its place, and a refusal for everything wrong."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from flanneld import options
from flanneld.flags import Flag, UsageError, mistyped, parse, usage

FLAGS = (
    Flag("word", "default", "a word"),
    Flag("switch", False, "a switch"),
    Flag("number", 5, "a number"),
    Flag("many", (), "several"),
    Flag("later", False, "not here", "not supported yet"),
)


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        ([], "word", "default"),
        (["-word", "x"], "word", "x"),
        (["--word", "x"], "word", "x"),
        (["-word=x"], "word", "x"),
        (["--word=x=y"], "word", "x=y"),
        (["--word="], "word", ""),
        (["--word", "-switch"], "word", "-switch"),
        (["-switch"], "switch", True),
        (["--switch=false"], "switch", False),
        (["--switch=T"], "switch", True),
        (["--number", "0x10"], "number", 16),
        (["--number=010"], "number", 8),
        (["--number=-3"], "number", -3),
        (["--many", "a", "--many=b"], "many", ("a", "b")),
        (["--word=x", "--word=y"], "word", "y"),
        (["--later=false"], "later", False),
    ],
)
def test_go_s_syntax(argv: list[str], name: str, value: object) -> None:
    values, rest = parse(FLAGS, argv, {})
    assert values[name] == value
    assert rest == []


@pytest.mark.parametrize(
    ("argv", "rest"),
    [
        (["--switch", "false"], ["false"]),
        (["--", "--word"], ["--word"]),
        (["-"], ["-"]),
        (["a", "--word=x"], ["a", "--word=x"]),
    ],
)
def test_flags_end_at_the_first_other_word(argv: list[str], rest: list[str]) -> None:
    assert parse(FLAGS, argv, {})[1] == rest


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--other"], "flag provided but not defined: -other"),
        (["--word"], "flag needs an argument: -word"),
        (["--switch=maybe"], 'invalid boolean value "maybe" for -switch'),
        (["--number=x"], 'invalid value "x" for flag -number'),
        (["--number="], 'invalid value "" for flag -number'),
        (["--later"], "-later=true: not supported yet"),
        (["---word=x"], "not defined: --word"),
    ],
)
def test_what_is_wrong_is_named(argv: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(FLAGS, argv, {})


def test_the_environment_fills_in() -> None:
    environ = {"FLANNELD_WORD": "e", "FLANNELD_SWITCH": "true", "FLANNELD_MANY": "one"}
    values, _ = parse(FLAGS, ["--word=c"], environ)
    assert (values["word"], values["switch"], values["many"]) == ("c", True, ("one",))


def test_an_empty_variable_is_none() -> None:
    assert parse(FLAGS, [], {"FLANNELD_WORD": ""})[0]["word"] == "default"


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(UsageError, match='"x" for flag FLANNELD_NUMBER'):
        parse(FLAGS, [], {"FLANNELD_NUMBER": "x"})


def test_usage_has_each_flag_with_its_default() -> None:
    text = usage(FLAGS)
    assert "--number\n        a number (default 5)\n" in text
    assert "--later\n        not here (not supported yet)\n" in text


class TestOptions:
    def test_defaults_are_the_go_daemon_s(self) -> None:
        found = options.read([], {})
        assert found.etcd_endpoints == ("http://127.0.0.1:4001", "http://127.0.0.1:2379")
        assert found.etcd_prefix == "/coreos.com/network"
        assert found.subnet_file == "/run/flannel/subnet.env"
        assert found.subnet_lease_renew_margin == 60
        assert (found.ip_masq, found.iptables_forward_rules, found.iptables_resync) == (
            False,
            True,
            5,
        )
        assert (str(found.healthz_ip), found.healthz_port) == ("0.0.0.0", 0)  # noqa: S104

    def test_names_of_variables(self) -> None:
        found = options.read([], {"FLANNELD_ETCD_ENDPOINTS": "http://a:1, http://b:2"})
        assert found.etcd_endpoints == ("http://a:1", "http://b:2")

    def test_addresses(self) -> None:
        found = options.read(["--public-ip=192.0.2.1", "--public-ipv6=2001:db8::1"], {})
        assert found.public_ip == IPv4Address("192.0.2.1")
        assert found.public_ipv6 == IPv6Address("2001:db8::1")

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["--subnet-lease-renew-margin=0"], "renew-margin option, out of acceptable range"),
            (["--subnet-lease-renew-margin=1440"], "between 1 and 1439"),
            (["--healthz-port=70000"], "between 0 and 65535"),
            (["--iptables-resync=0"], "between 1 and"),
            (["--public-ip=2001:db8::1"], '"2001:db8::1" for flag -public-ip'),
            (["--public-ip=x"], '"x" for flag -public-ip'),
            (["--iface-regex=("], "not a regular expression"),
            (["--subnet-mgr=zookeeper"], '"zookeeper" for flag -subnet-mgr'),
            (["--etcd-certfile=x"], "belong together"),
            (["--etcd-username=x"], "belong together"),
            (["--etcd-endpoints="], "-etcd-endpoints is empty"),
            (["--network=10.0.0.0/8"], "for --subnet-mgr local only"),
            (["--peers=x"], "for --subnet-mgr local only"),
            (["--kube-subnet-mgr", "--network=10.0.0.0/8"], "for --subnet-mgr local only"),
            (["--kube-subnet-mgr", "--subnet-mgr=local"], "give one of the two"),
            (["--ip-masq", "true"], 'unexpected argument "true"'),
        ],
    )
    def test_what_is_wrong_is_named(self, argv: list[str], words: str) -> None:
        with pytest.raises(UsageError, match=words):
            options.read(argv, {})


def test_a_variable_that_is_no_flag_s_is_named() -> None:
    environ = {
        "FLANNELD_ETCD_ENDPOINT": "http://a:1",
        "FLANNELD_ETCD_ENDPOINTS": "http://a:1",
        "FLANNELD_XYZZY": "",
        "FLANNELD_PORT_8081_TCP_ADDR": "10.96.0.7",
        "FLANNELD_SERVICE_HOST": "10.96.0.7",
        "FLANNELD_PORT": "tcp://10.96.0.7:8081",
        "PATH": "/bin",
    }
    assert mistyped(options.FLAGS, environ) == [
        (
            "the variable FLANNELD_ETCD_ENDPOINT is no flag's, and is ignored:"
            " is FLANNELD_ETCD_ENDPOINTS meant?"
        ),
        "the variable FLANNELD_XYZZY is no flag's, and is ignored",
    ]
