"""Which adapters are in memory. One thread owns this; reading is done by another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from dayjob.policies.adapters import Adapter
from dayjob.policies.engine_protocol import VersionRef


class Shelf:
    """A bounded number of adapters in memory, any number on disk; least recently asked for out first."""

    def __init__(
        self,
        read: Callable[[VersionRef], Adapter],
        *,
        room: int,
        wake: Callable[[], None],
        forget: Callable[[VersionRef], None],
    ) -> None:
        """``wake`` is called, on another thread, when something was read; ``forget`` when an adapter is put out."""
        self.reads = 0  # folders read so far
        self._read, self._room, self._wake, self._forget = read, room, wake, forget
        self._held: OrderedDict[str, Adapter] = OrderedDict()
        self._reading: dict[VersionRef, Future[Adapter]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    def take(self, ref: VersionRef, *, in_use: Collection[str]) -> Adapter | None:
        """The adapter, or None while it is being read or all room is ``in_use`` (call again after the next wake).

        Raises what reading it raised; the next call tries again.
        """
        held = self._held.get(ref.name)
        if held is not None and held.ref == ref:
            self._held.move_to_end(ref.name)
            return held
        if ref.folder is None:
            return Adapter(ref=ref, parts={})
        reading = self._reading.get(ref)
        if reading is None:
            self.reads += 1
            reading = self._reading[ref] = self._reader.submit(self._read, ref)
            reading.add_done_callback(lambda _: self._wake())
            return None
        if not reading.done():
            return None
        if reading.exception() is None and len(self._held) >= self._room:
            out = next((name for name in self._held if name not in in_use), None)
            if out is None:
                return None
            self._put_out(out)
        del self._reading[ref]
        adapter = self._held[ref.name] = reading.result()
        return adapter

    def drop(self, name: str) -> None:
        """Put an adapter out of memory, and what is being read of it."""
        for ref in [ref for ref in self._reading if ref.name == name]:
            del self._reading[ref]
        if name in self._held:
            self._put_out(name)

    def held(self) -> tuple[str, ...]:
        """Adapters in memory, the next to go first."""
        return tuple(self._held)

    def close(self) -> None:
        """Wait for what is being read, and forget everything."""
        self._reader.shutdown(cancel_futures=True)
        self._held.clear()

    def _put_out(self, name: str) -> None:
        self._forget(self._held.pop(name).ref)
