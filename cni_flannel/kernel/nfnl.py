"""What nftables holds, read from the kernel without a process: is that chain there, which rules.

A look costs 0.1 ms where `nft list` costs 3 to 6, so that a teardown with nothing to take away
is free. Reads only: rules are written by the tools (`nft`, `iptables-restore`), which keep
their layout readable to each other. iptables-nft's tables are seen too, iptables-legacy's not.
Follows linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.

Imports cni.errors, cni.native, kernel.nlmsg, errno, struct.
"""

from __future__ import annotations

import errno
import struct

from cni.errors import KERNEL_REFUSED, CNIError
from cni.native import socket
from netlink import nlmsg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

NFPROTO_INET = 1
NFPROTO_IPV4 = 2
NFPROTO_BRIDGE = 7
NFPROTO_IPV6 = 10

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_GETCHAIN = _NFNL_SUBSYS_NFTABLES << 8 | 4
_NFT_MSG_GETRULE = _NFNL_SUBSYS_NFTABLES << 8 | 7
_NFTA_CHAIN_TABLE = 1
_NFTA_CHAIN_NAME = 3
_NFTA_RULE_TABLE = 1
_NFTA_RULE_CHAIN = 2
_NFTA_RULE_HANDLE = 3
_NFTA_RULE_USERDATA = 7
_UDATA_RULE_COMMENT = 0  # libnftnl/udata.h

_NFGENMSG = struct.Struct("=BBH")  # family, version 0, resource id
_RECEIVE = 65536
DUMP_ATTEMPTS = 20

_ABSENT = (
    errno.ENOENT,
    errno.EINVAL,  # no nf_tables in this kernel
    errno.EOPNOTSUPP,
    errno.EAFNOSUPPORT,
    errno.EPROTONOSUPPORT,  # not even nfnetlink
)


class Rule:
    """One rule: `handle` is its number within the table, `comment` its text or ""."""

    __slots__ = ("comment", "handle")

    def __init__(self, handle: int, comment: str) -> None:
        self.handle = handle
        self.comment = comment


class Ruleset:
    """The nftables of the calling thread's network namespace; a context manager.

    A kernel without nftables has no chains and no rules; other refusals are CNIErrors.
    """

    __slots__ = ("_seq", "_socket")

    def __enter__(self) -> Self:
        self._seq = 0
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
            )
        except OSError as error:
            if error.errno not in _ABSENT:
                raise _failure(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def has_chain(self, family: int, table: str, chain: str) -> bool:
        """Whether the chain exists; `family` is an NFPROTO number."""
        attrs = nlmsg.attr(_NFTA_CHAIN_TABLE, table) + nlmsg.attr(_NFTA_CHAIN_NAME, chain)
        return bool(self._ask(_NFT_MSG_GETCHAIN, nlmsg.NLM_F_ACK, family, attrs))

    def may_have_chain(self, family: int, table: str, chain: str) -> bool:
        """Whether the chain exists, or whether that cannot be known."""
        try:
            return self.has_chain(family, table, chain)
        except CNIError:
            return True

    def rules(self, family: int, table: str, chain: str, comment: str = "") -> list[Rule]:
        """Return the chain's rules whose comment begins so, in order; none without the chain.

        CNIError when other programs change the ruleset during each of several reads.
        """
        attrs = nlmsg.attr(_NFTA_RULE_TABLE, table) + nlmsg.attr(_NFTA_RULE_CHAIN, chain)
        for _ in range(DUMP_ATTEMPTS):
            answer = self._ask(_NFT_MSG_GETRULE, nlmsg.NLM_F_DUMP, family, attrs)
            if not any(message.flags & nlmsg.NLM_F_DUMP_INTR for message in answer):
                return [
                    rule
                    for message in answer
                    for rule in _rules_of(message, chain)
                    if rule.comment.startswith(comment)
                ]
        raise CNIError(
            KERNEL_REFUSED,
            f'read nftables: chain "{chain}" of table "{table}" changed during each of '
            f"{DUMP_ATTEMPTS} reads",
            "another program rewrites the rules without a pause: look for it with 'nft monitor'; "
            "the call can be repeated",
        )

    def _ask(self, kind: int, flags: int, family: int, attrs: bytes) -> list[nlmsg.Message]:
        """Send one request and gather its answers; [] when what it names is missing."""
        if self._socket is None:
            return []
        self._seq += 1
        body = _NFGENMSG.pack(family, 0, 0) + attrs
        request = nlmsg.Message(kind, nlmsg.NLM_F_REQUEST | flags, body)
        try:
            self._socket.sendto(nlmsg.pack(request, self._seq), (0, 0))
            return _answers(self._socket, self._seq)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise _failure(error) from error


def _answers(source: socket.socket, seq: int) -> list[nlmsg.Message]:
    """Receive what answers one request, up to its end; NetlinkError when it is refused."""
    answers: list[nlmsg.Message] = []
    while True:
        for message in nlmsg.unpack(source.recv(_RECEIVE)):
            if message.seq != seq:
                continue
            if message.type not in {nlmsg.NLMSG_ERROR, nlmsg.NLMSG_DONE}:
                answers.append(message)
                continue
            refusal = nlmsg.refusal(message)
            if refusal is not None:
                raise refusal
            return answers


def _failure(error: OSError) -> CNIError:
    return CNIError(
        KERNEL_REFUSED,
        f"read nftables: {error.strerror}",
        "the plugin needs CAP_NET_ADMIN in the network namespace it works in",
    )


def _rules_of(message: nlmsg.Message, chain: str) -> list[Rule]:
    """Decode a rule; kernels before 4.18 take the table for a filter, but not the chain."""
    attrs = nlmsg.parse_attrs(message.body, _NFGENMSG.size)
    if nlmsg.to_text(attrs.get(_NFTA_RULE_CHAIN)) != chain:
        return []
    handle = int.from_bytes(attrs.get(_NFTA_RULE_HANDLE, b""), "big")
    return [Rule(handle, _comment(attrs.get(_NFTA_RULE_USERDATA, b"")))]


def _comment(userdata: bytes) -> str:
    """Find the comment among user data: type and length of one byte each, then the value."""
    start = 0
    while start + 2 <= len(userdata):
        kind, size = userdata[start], userdata[start + 1]
        if kind == _UDATA_RULE_COMMENT:
            return nlmsg.to_text(userdata[start + 2 : start + 2 + size])
        start += 2 + size
    return ""
