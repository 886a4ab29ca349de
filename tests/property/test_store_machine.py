"""The leases on disk against a dict, with Go's plugin and an administrator in the same folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni.errors import CNIError
from ipam.index import SHIFT_NS
from tests.unit.ipam_node import Node

CAPACITY = 5
ADDRESSES = [f"10.5.0.{n}" for n in range(2, 7)]
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "long" * 70])
IFNAMES = st.sampled_from(["eth0", "net1"])
ADDRESS = st.sampled_from(ADDRESSES)


class Leases(RuleBasedStateMachine):
    """`model` is address -> what its file says."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp())
        self.node = Node(self.base, ranges=[[{"subnet": "10.5.0.0/29"}]])
        self.model: dict[str, str] = {}
        self.last = "10.5.0.6"

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    def held(self, container_id: str, ifname: str) -> list[str]:
        """What DEL frees: today's format, and only without it the old one."""
        today = [ip for ip, text in self.model.items() if text == f"{container_id}\r\n{ifname}"]
        return today or [ip for ip, text in self.model.items() if text == container_id]

    def is_duplicate(self, container_id: str, ifname: str) -> bool:
        return bool(self.held(container_id, ifname))

    @rule(container_id=IDS, ifname=IFNAMES)
    def add(self, container_id: str, ifname: str) -> None:
        free = [ip for ip in ADDRESSES if not self.model.get(ip)]
        if self.is_duplicate(container_id, ifname) or not free:
            with pytest.raises(CNIError):
                self.node.add(container_id, ifname)
            return
        after = [ip for ip in free if ip > self.last]
        expected = (after or free)[0]
        assert self.node.add(container_id, ifname) == [expected]
        self.model[expected] = f"{container_id}\r\n{ifname}"
        self.last = expected

    @rule(container_id=IDS, ifname=IFNAMES, address=ADDRESS)
    def add_requested(self, container_id: str, ifname: str, address: str) -> None:
        if self.model.get(address) or self.is_duplicate(container_id, ifname):
            with pytest.raises(CNIError):
                self.node.add(container_id, ifname, cni_args=f"IP={address}")
            return
        assert self.node.add(container_id, ifname, cni_args=f"IP={address}") == [address]
        self.model[address] = f"{container_id}\r\n{ifname}"
        self.last = address

    @rule(container_id=IDS, ifname=IFNAMES)
    def delete(self, container_id: str, ifname: str) -> None:
        self.node.delete(container_id, ifname)
        for address in self.held(container_id, ifname):
            del self.model[address]

    @rule(valid=st.sets(st.tuples(IDS, IFNAMES), min_size=1, max_size=6))
    def gc(self, valid: set[tuple[str, str]]) -> None:
        self.node.gc(*valid)
        texts = {"\r\n".join(one) for one in valid} | {one for one, _ in valid}
        self.model = {ip: text for ip, text in self.model.items() if text in texts}

    @rule()
    def gc_of_the_dead(self) -> None:
        self.node.gc(absent=True)
        self.model = {ip: text for ip, text in self.model.items() if text}

    @rule(container_id=IDS, ifname=st.sampled_from(["eth0", "net1", ""]), address=ADDRESS)
    def another_plugin_adds(self, container_id: str, ifname: str, address: str) -> None:
        if address in self.model:
            return
        text = f"{container_id}\r\n{ifname}" if ifname else container_id
        if text in self.model.values():
            return
        self.node.put(address, text)
        self.node.put("last_reserved_ip.0", address)
        self.model[address] = text
        self.last = address

    @rule(address=ADDRESS)
    def another_plugin_is_killed(self, address: str) -> None:
        if address not in self.model:
            self.node.put(address, "")
            self.model[address] = ""

    @rule(address=ADDRESS)
    def another_plugin_deletes(self, address: str) -> None:
        if self.model.pop(address, None) is not None:
            (self.node.leases / address).unlink()

    @rule(address=ADDRESS)
    def another_plugin_deletes_within_a_tick(self, address: str) -> None:
        """The directory's time is what the kernel gave our own last change."""
        if address in self.model:
            tick = self.node.leases.stat().st_mtime_ns + 1
            self.another_plugin_deletes(address)
            os.utime(self.node.leases, ns=(tick, tick))

    @rule(data=st.data())
    def an_administrator_thins_the_index(self, data: st.DataObject) -> None:
        names = sorted(self.node.entries())
        if names:
            (self.node.index / data.draw(st.sampled_from(names))).unlink()

    @rule()
    def an_administrator_removes_the_index(self) -> None:
        shutil.rmtree(self.node.data_dir / ".index", ignore_errors=True)

    @rule()
    def an_administrator_removes_the_leases(self) -> None:
        shutil.rmtree(self.node.leases, ignore_errors=True)
        self.model.clear()
        self.last = "10.5.0.6"

    @invariant()
    def files_are_the_model(self) -> None:
        assert self.node.files() == self.model

    @invariant()
    def a_trusted_index_knows_every_lease(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            times = [path.stat().st_mtime_ns for path in (self.node.leases, self.node.index)]
            if times[0] - times[1] != SHIFT_NS:
                return
            entries = self.node.entries()
            for address, text in self.model.items():
                name = text.replace("\r\n", ":") if "\r\n" in text else f"{text}:"
                if text and len(name) <= 255:
                    assert address in entries[name].split()[0].split(",")

    @invariant()
    def status_agrees(self) -> None:
        if all(self.model.get(address) for address in ADDRESSES):
            with pytest.raises(CNIError):
                self.node.status()
        else:
            self.node.status()


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
