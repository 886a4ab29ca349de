"""What the daemon is told of dropped packets: all of them, also when it does not listen at once."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest

from flanneld.forward import drops
from flanneld.forward.drops import Drops
from flanneld.metrics import Metrics


def test_a_daemon_that_is_stopped_gets_the_sum_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drops, "_TELL_S", 0.0)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    counted: Counter[str] = Counter()
    told = Drops(counted, writing)
    told.tell()
    assert told.wait() is None
    filler = os.write(writing, bytes(1 << 20))
    counted["no node"] += 2
    told.tell()
    assert told.wait() == 0
    assert len(os.read(reading, 1 << 20)) == filler
    counted["socket full"] += 1
    told.tell()
    assert json.loads(os.read(reading, 1 << 20)) == {"no node": 2, "socket full": 1}
    assert told.wait() is None
    counted["no node"] += 1
    told.tell()
    assert json.loads(os.read(reading, 1 << 20)) == {"no node": 1}
    os.close(reading)
    counted["no node"] += 1
    with pytest.raises(BrokenPipeError):
        told.tell()
    os.close(writing)


def test_they_are_counted_by_reason() -> None:
    metrics = Metrics()
    metrics.drop({"no node": 2})
    metrics.drop({"no node": 1, "socket full": 5})
    text = metrics.text().decode()
    assert 'flannel_udp_dropped_packets_total{reason="no node"} 3.0' in text
    assert 'flannel_udp_dropped_packets_total{reason="socket full"} 5.0' in text
