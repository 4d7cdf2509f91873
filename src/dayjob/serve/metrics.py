"""What Prometheus reads. Units are in the names."""

import threading
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """One server's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Finding a series by its labels costs more than counting: the found ones are kept.
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "dayjob_requests_total", "Requests answered", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "dayjob_request_seconds", "Time to answer", ("route",), buckets=BUCKETS, registry=self.registry
        )
        self._waiting = Gauge("dayjob_write_queue_rows", "Writes waiting for their commit", registry=self.registry)
        self._lag = Gauge(
            "dayjob_judge_lag_decisions",
            "Closed decisions not judged yet",
            ("tenant", "policy"),
            registry=self.registry,
        )
        self._damaged = Gauge(
            "dayjob_damaged_versions", "Versions that do not serve", ("tenant",), registry=self.registry
        )
        self._rendering = threading.Lock()

    def observe(self, route: str, method: str, *, status: int, seconds: float) -> None:
        """Count an answered request."""
        counted = self._counted.get((route, method, status))
        if counted is None:
            counted = self._requests.labels(route, method, str(status)), self._seconds.labels(route)
            self._counted[route, method, status] = counted
        counted[0].inc()
        counted[1].observe(seconds)

    def render(self, tenant: str, lags: Mapping[str, int], *, waiting: int, damaged: int) -> bytes:
        """The text that a tenant's Prometheus scrapes. ``lags``: closed decisions not judged yet, by policy."""
        with self._rendering:
            self._waiting.set(waiting)
            self._damaged.labels(tenant).set(damaged)
            for policy, lag in lags.items():
                self._lag.labels(tenant, policy).set(lag)
            text = generate_latest(self.registry)
            # The next to ask may be of another tenant.
            self._damaged.clear()
            self._lag.clear()
        return text
