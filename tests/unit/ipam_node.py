"""A node's folder of leases for the tests of host-local, and calls of its verbs in this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CNIError
from cni.types import Args
from ipam import plugin

if TYPE_CHECKING:
    from pathlib import Path

    from cni.types import Result

VALID = "cni.dev/valid-attachments"
SMALL = {"ranges": [[{"subnet": "10.5.0.0/29"}]]}  # .2 to .6
DUAL = {"ranges": [[{"subnet": "10.5.0.0/29"}], [{"subnet": "fd00::/126"}]]}
YEAR_S = 366 * 86400.0


def refused(code: int, call: Any, *names: Any, **more: Any) -> CNIError:
    """Call, which must fail with this code; the error."""
    with pytest.raises(CNIError) as caught:
        call(*names, **more)
    assert caught.value.code == code, caught.value
    return caught.value


class Node:
    """`leases` is `<dataDir>/<network>`; `notes` are the lines that went to stderr."""

    def __init__(self, base: Path, **ipam: Any) -> None:
        self.data_dir = base / "networks"
        self.leases = self.data_dir / "net"
        self.index = self.data_dir / ".index" / "net"
        self.results = base / "results"
        self.results.mkdir(parents=True, exist_ok=True)
        self.notes: list[str] = []
        self.ipam = ipam or {"ranges": [[{"subnet": "10.5.0.0/24"}]]}

    def args(self, container_id: str = "c1", ifname: str = "eth0", **more: Any) -> Args:
        """One call: `ipam`, `netns` and `cni_args` by keyword, other keywords go into the conf."""
        ipam = {"type": "host-local", "dataDir": str(self.data_dir), **self.ipam}
        ipam.update(more.pop("ipam", {}))
        netns, cni_args = more.pop("netns", ""), more.pop("cni_args", "")
        environ = more.pop("environ", {})
        conf = {"name": "net", "cniVersion": "1.1.0", "ipam": ipam, **more}
        return Args(
            command="TEST",
            container_id=container_id,
            ifname=ifname,
            netns=netns,
            cni_args=cni_args,
            conf=conf,
            environ=environ,
            note=self.notes.append,
        )

    def result(self, *names: str, **more: Any) -> Result:
        """ADD; returns the result."""
        return plugin.cmd_add(self.args(*names, **more), str(self.results))

    def add(self, *names: str, **more: Any) -> list[str]:
        """ADD; returns the addresses without their prefix lengths."""
        return [ip["address"].partition("/")[0] for ip in self.result(*names, **more)["ips"]]

    def delete(self, *names: str, **more: Any) -> None:
        """DEL."""
        plugin.cmd_del(self.args(*names, **more))

    def check(self, *names: str, **more: Any) -> None:
        """CHECK; `prevResult` by keyword."""
        plugin.cmd_check(self.args(*names, **more))

    def status(self, **more: Any) -> None:
        """STATUS."""
        plugin.cmd_status(self.args(**more), str(self.results))

    def gc(self, *valid: tuple[str, str], absent: bool = False) -> None:
        """GC with a list of valid attachments, or without the key."""
        listed = [{"containerID": one, "ifname": two} for one, two in valid]
        args = self.args()
        if not absent:
            args.conf[VALID] = listed
        plugin.cmd_gc(args, str(self.results))

    def files(self) -> dict[str, str]:
        """The lease files and what they say."""
        if not self.leases.is_dir():
            return {}
        return {
            path.name: path.read_bytes().decode()
            for path in self.leases.iterdir()
            if path.name != "lock" and not path.name.startswith("last_reserved_ip.")
        }

    def entries(self) -> dict[str, str]:
        """The index: attachment -> addresses."""
        if not self.index.is_dir():
            return {}
        return {name: os.readlink(self.index / name) for name in os.listdir(self.index)}

    def put(self, name: str, content: str = "", *, age_s: float = 0.0) -> None:
        """Write a lease file as Go's plugin does."""
        self.leases.mkdir(parents=True, exist_ok=True)
        path = self.leases / name
        path.write_bytes(content.encode())
        if age_s:
            then = path.stat().st_mtime - age_s
            os.utime(path, (then, then))
