"""One kind of packet filter in a private namespace, and what the daemon's rules are in it."""

from __future__ import annotations

import asyncio
import json
import shutil
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from flanneld.rules.manager import Rules
from flanneld.rules.programs import Programs
from flanneld.rules.texts import Traffic
from tests.kernel.privatens import sh

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
KINDS = ["iptables-nft", "iptables-legacy", "nftables"]
TRAFFIC = (
    Traffic(ip_network("10.42.0.0/16"), ip_network("10.42.1.0/24")),
    Traffic(ip_network("fd00:42::/48"), ip_network("fd00:42:0:1::/64")),
)
ELSEWHERE = (
    Traffic(ip_network("10.42.0.0/16"), ip_network("10.42.9.0/24")),
    Traffic(ip_network("fd00:42::/48"), ip_network("fd00:42:0:9::/64")),
)


class Filter:
    """The daemon's rules by one kind of packet filter, and the programs' own view of them."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = SYSTEM
        if kind != "nftables":
            multi = shutil.which(f"xtables-{kind.removeprefix('iptables-')}-multi", path=SYSTEM)
            assert multi is not None
            for name in ("iptables", "ip6tables"):
                for verb in ("", "-restore", "-save"):
                    (folder / (name + verb)).symlink_to(multi)
            self.path = f"{folder}:{SYSTEM}"

    def rules(self, traffic: Any = TRAFFIC, **options: Any) -> Rules:
        options.setdefault("nftables", self.kind == "nftables")
        return Rules(traffic, programs=Programs(self.path), **options)

    def sh(self, command: str) -> str:
        return sh(command, PATH=self.path)

    def saved(self) -> list[str]:
        """Every line that iptables-save prints of both families, but for the counters'."""
        text = self.sh("iptables-save; ip6tables-save")
        return [line for line in text.splitlines() if line.startswith(("-A", ":FLANNEL"))]

    def ours(self) -> Any:
        """What is there of the daemon's, as the kind's own program prints it."""
        if self.kind == "nftables":
            return flannel_tables()
        return [line for line in self.saved() if "FLANNEL" in line]


def flannel_tables() -> list[str]:
    """The daemon's tables as nft lists them."""
    listed = json.loads(sh("nft -j list tables"))["nftables"]
    tables = [entry["table"] for entry in listed if "table" in entry]
    return sorted(
        sh(f"nft -s list table {table['family']} {table['name']}")
        for table in tables
        if table["name"].startswith("flannel")
    )


def ensure(rules: Rules) -> list[str]:
    return asyncio.run(rules.ensure())
