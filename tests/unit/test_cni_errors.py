"""The error object, the combination of several errors, and the identity of an attachment."""

from __future__ import annotations

import pytest

from cni import errors
from cni.attachment import ALIAS_BYTES, Attachment, parse_alias
from cni.errors import CNIError, Interrupted, combine
from cni.types import Args


def test_the_error_object_has_the_specs_keys_in_order() -> None:
    error = CNIError(errors.INVALID_NETWORK_CONFIG, "missing network name", "add one")
    assert list(error.to_json("1.1.0").items()) == [
        ("cniVersion", "1.1.0"),
        ("code", 7),
        ("msg", "missing network name"),
        ("details", "add one"),
    ]


def test_an_unknown_version_and_empty_details_are_left_out() -> None:
    assert CNIError(4, "x").to_json() == {"code": 4, "msg": "x"}


def test_the_text_of_an_error_holds_the_remedy() -> None:
    assert str(CNIError(4, "no", "do this")) == "no; do this"
    assert str(CNIError(4, "no")) == "no"


def test_one_error_is_passed_on_as_it_is() -> None:
    only = CNIError(11, "busy", "wait")
    assert combine("clean up", [only]) is only


def test_of_several_errors_nothing_is_lost() -> None:
    both = combine("clean up", [CNIError(102, "a", "d1"), CNIError(5, "b"), CNIError(6, "c", "d3")])
    assert (both.code, both.msg, both.details) == (102, "clean up: a; b; c", "d1\nd3")


def test_no_error_at_all_is_a_bug() -> None:
    assert combine("clean up", []).code == errors.INTERNAL


def test_an_interruption_is_no_exception() -> None:
    assert not issubclass(Interrupted, Exception)
    assert Interrupted(15).signum == 15


def args(**changes: object) -> Args:
    fields: dict[str, object] = {"command": "ADD", "conf": {}, "environ": {}, "note": print}
    return Args(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_copy_of_args_differs_in_what_was_named_only() -> None:
    first = args(container_id="c", ifname="eth0")
    second = first.replaced(conf={"name": "n"})
    assert (second.conf, second.container_id, second.ifname) == ({"name": "n"}, "c", "eth0")
    assert first.conf == {}


@pytest.mark.parametrize(("value", "debug"), [(None, False), ("0", False), ("1", True)])
def test_debug_is_asked_for_in_the_environment(value: str | None, debug: bool) -> None:  # noqa: FBT001
    assert args(environ={"CNI_FLANNEL_DEBUG": value} if value else {}).debug is debug


ONE = Attachment("cbr0", "c1", "eth0")


def test_attachments_are_values() -> None:
    assert Attachment("cbr0", "c1", "eth0") == ONE
    assert len({ONE, Attachment("cbr0", "c1", "eth0"), Attachment("cbr0", "c1", "eth1")}) == 2
    assert ONE != "cbr0"
    assert repr(ONE) == "Attachment('cbr0', 'c1', 'eth0')"


def test_the_host_veths_name_is_stable_and_has_the_fields_shape() -> None:
    assert ONE.host_veth_name() == "veth51a956d7"  # files and kernels of other versions hold it
    assert len({ONE.host_veth_name(n) for n in range(5)}) == 5


def test_parts_cannot_run_into_each_other() -> None:
    assert (
        Attachment("a", "bc", "d").host_veth_name() != Attachment("ab", "c", "d").host_veth_name()
    )


def test_an_alias_is_read_back() -> None:
    assert ONE.alias() == "flannel:cbr0:c1:eth0"
    assert parse_alias(ONE.alias()) == ONE


@pytest.mark.parametrize(
    "text", ["", "flannel", "flannel::a:b", "x:cbr0:c1:eth0", "flannel:a:b:c:d"]
)
def test_a_strangers_alias_is_nobodys(text: str) -> None:
    assert parse_alias(text) is None


def test_the_alias_of_a_link_that_is_being_made_is_recognised() -> None:
    long = Attachment("n" * 200, "c" * 64, "eth0")
    for attachment in (ONE, long):
        begun = attachment.alias(adding=True)
        assert begun != attachment.alias()
        assert len(begun) <= ALIAS_BYTES
        assert attachment.owns(begun)
        assert attachment.owns(attachment.alias())
        assert not attachment.owns(Attachment("x", "c1", "eth0").alias())
    assert parse_alias(ONE.alias(adding=True)) == ONE


def test_the_alias_of_a_link_with_rules_is_recognised() -> None:
    for attachment in (ONE, Attachment("n" * 200, "c" * 200, "eth0123456789ab")):
        marked = attachment.alias(rules=True)
        assert marked not in (attachment.alias(), attachment.alias(adding=True))
        assert len(marked) <= ALIAS_BYTES
        assert attachment.owns(marked)
    assert parse_alias(ONE.alias(rules=True)) == ONE


def test_a_long_alias_becomes_a_hash_that_still_proves() -> None:
    long = Attachment("n" * 200, "c" * 64, "eth0")
    assert len(long.alias()) <= ALIAS_BYTES
    assert parse_alias(long.alias()) is None
    assert long.alias() != Attachment("n" * 200, "c" * 64, "eth1").alias()


def test_an_alias_counts_bytes() -> None:
    assert len(Attachment("n" * 180, "c" * 64, "\u00e9" * 7).alias().encode()) <= ALIAS_BYTES
