"""Programs of the packet filter that cannot be run, or print what they should not."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from flanneld.rules.manager import Rules
from flanneld.rules.programs import Programs, RulesError
from flanneld.rules.texts import Traffic

if TYPE_CHECKING:
    from pathlib import Path

V4 = Traffic(ip_network("10.42.0.0/16"), ip_network("10.42.1.0/24"))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("\x7fELF of another machine", "nft: Exec format error"),
        ("#!/bin/sh\necho '{}'", "read what nft printed of table ip flannel-ipv4"),
        ("#!/bin/sh\necho Segmentation fault", "read what nft printed of table ip flannel-ipv4"),
        ("#!/bin/sh\necho no memory >&2; exit 1", "list table ip flannel-ipv4 with nft: no memory"),
    ],
)
def test_what_went_wrong_is_told(script: str, said: str, tmp_path: Path) -> None:
    nft = tmp_path / "nft"
    nft.write_text(f"{script}\n")
    nft.chmod(0o755)
    rules = Rules([V4], nftables=True, programs=Programs(str(tmp_path)))
    with pytest.raises(RulesError, match=said):
        asyncio.run(rules.ensure())
