"""F14: learning, promotions and a kill every few seconds. Memory, descriptors, log files stay flat; nothing is lost."""

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from dayjob.endings import JobState
from tests.promises.learning import check_versions, declare, end_leases, jobs, listed, until
from tests.promises.rig import POLICY, Ports, Running, Worker, check_history, merged, serving

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="measures by Linux's /proc")
WARM = 0.4  # of the samples: caches fill, libraries load
WAL_BYTES = 24 << 20  # SQLite empties the log from a thousand pages of 16 KiB on; a reader may hold it up for a moment
FEW_DESCRIPTORS = 12  # connections of the moment


@dataclass(slots=True)
class Watch:
    """A sample a second of one server."""

    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    logs: list[int] = field(default_factory=list)

    def sample(self, server: Running) -> None:
        proc = Path(f"/proc/{server.process.pid}")
        self.memory.append(int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        self.descriptors.append(len(os.listdir(proc / "fd")))
        sizes = [path.stat().st_size for path in server.data.glob("*-wal")]
        self.logs.append(max(sizes, default=0))

    def check(self, most_growth: int) -> None:
        """Flat: the last part is like the one after the warming up."""
        warm = max(1, int(len(self.memory) * WARM))
        middle = (len(self.memory) + warm) // 2
        growth = median(self.memory[middle:]) - median(self.memory[warm:middle])
        assert growth < most_growth, self.memory
        assert max(self.descriptors[middle:]) <= max(self.descriptors[:middle]) + FEW_DESCRIPTORS, self.descriptors
        assert max(self.logs) < WAL_BYTES, self.logs


def soak(data: Path, *, seconds: float, kill_every_s: float, most_growth: int) -> int:
    """Kill the learner or the judge again and again under load; what was learned meanwhile."""
    dice, ports, watch = random.Random(31), Ports(), Watch()
    workers = [Worker(ports, 3_100 + n) for n in range(2)]
    with serving(data, learner=True) as server:
        link = server.link()
        declare(link, learn_every=100)
        ports.now = server.port
        for worker in workers:
            worker.start()
        began = killed = time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(1.0)
            watch.sample(server)
            name = dice.choice(listed(link))
            link("POST", f"/v1/policies/{POLICY}/promote", {"version": name, "reason": "a test"})
            if time.monotonic() - killed >= kill_every_s:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server.helper(dice.choice(("learn", "gate"))), signal.SIGKILL)
                end_leases(data)
                killed = time.monotonic()
        ports.now = 0
        history = merged([worker.end() for worker in workers])
        until(lambda: JobState.SUCCEEDED in jobs(data).values(), "a version")
        assert link.ok("GET", "/readyz")["damaged"] == {}
        assert server.stop() == 0
    watch.check(most_growth)
    check_history(history, data)
    assert len(history.told) > 50 * seconds / 10
    assert history.cut == 0, "the server itself was never away"
    check_versions(data)
    return sum(state is JobState.SUCCEEDED for state in jobs(data).values())


@pytest.mark.timeout(180)
def test_a_short_soak_is_flat(tmp_path: Path) -> None:
    assert soak(tmp_path / "data", seconds=6.0, kill_every_s=3.5, most_growth=24 << 20) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_ten_minutes_are_flat(tmp_path: Path) -> None:
    assert soak(tmp_path / "data", seconds=600.0, kill_every_s=60.0, most_growth=24 << 20) >= 10
