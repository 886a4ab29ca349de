"""What is counted for ``/metrics``, in the text format of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from flanneld.program import Build, build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.readiness import Readiness

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The daemon's figures; each has its unit in its name."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.leases = self._gauge("leases", "Leases in the store, this node's among them")
        self.peers = self._gauge("peers", "Other nodes' leases that are planned")
        self.problems = self._gauge("problems", "What is wrong at present")
        self._causes = Gauge(
            "flannel_causes",
            "What is wrong at present, by the part that found it; blocks: the node is unready",
            ["part", "blocks"],
            registry=self._registry,
        )
        self.ready = self._gauge("ready", "1 if /readyz says so, else 0")
        self.expires = self._gauge(
            "lease_expiry_timestamp_seconds", "When this node's lease ends; 0 if it has no end"
        )
        self.repaired = self._counter(
            "drift_repaired", "Kernel entries put right without any change of leases"
        )
        self.changed = self._counter("programmed", "Kernel entries made, changed or removed")
        self.rules = self._counter("rules_repaired", "Traffic rules found wrong and put right")
        self.store_errors = self._counter("store_errors", "Calls of the store that failed")
        built = Gauge(
            "flannel_build_info",
            "1; the labels say which build this is",
            Build._fields,
            registry=self._registry,
        )
        built.labels(*build()).set(1)
        self._dropped = Counter(
            "flannel_udp_dropped_packets",
            "Packets that the udp backend dropped, by the reason",
            ["reason"],
            registry=self._registry,
        )
        self.latency = Histogram(
            "flannel_event_latency_seconds",
            "From a change of a lease or the kernel until all is programmed",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def show(self, readiness: Readiness) -> None:
        """Take what is wrong now."""
        self.ready.set(readiness.ready)
        self.problems.set(len(readiness.causes))
        self._causes.clear()
        for cause in readiness.causes:
            self._causes.labels(cause.part, "yes" if cause.blocks else "no").inc()

    def drop(self, packets: Mapping[str, int]) -> None:
        """Count dropped packets by their reasons."""
        for reason, number in packets.items():
            self._dropped.labels(reason).inc(number)

    def text(self) -> bytes:
        """Write all figures."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"flannel_{name}", text, registry=self._registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"flannel_{name}", text, registry=self._registry)
