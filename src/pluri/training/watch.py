"""A run that hangs ends, and says which of its processes hung."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

from pluri.runtime import rank, world_size
from pluri.training.parallel import first_to_fail, group_store, meet


class Watch:
    """While it is entered, a thread tells the other processes how far this one is, and learns how far they are.

    A process that waits for others cannot say whom it waits for; a thread of its own can. If this process has not moved
    for `minutes`, the one that does not answer hangs, or else the one that is behind; and this process is ended.
    Nothing is watched where there is one process.
    """

    def __init__(self, minutes: float) -> None:
        self._limit = 60 * minutes
        self._place = 0
        self._alone = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        if world_size() > 1:
            self._store = group_store("watch")
            self._say(0)
            meet()  # everybody's place is known
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def moved(self) -> None:
        """This process got further. All processes move alike: they come by the same calls of this."""
        self._place += 1

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within it this process works for as long as it takes, and waits for nobody."""
        self._alone = True
        yield
        self._alone = False
        self.moved()

    def _say(self, beat: int) -> None:
        self._store.set(str(rank()), f"{self._place} {beat} {socket.gethostname()}")

    def _run(self) -> None:
        """Looks ten times within the limit, and at least every ten seconds."""
        size, now = world_size(), time.monotonic()
        places, moved = [-1] * size, [now] * size  # of each process, and when it came there
        said, heard = [""] * size, [now] * size  # what it said last, and when
        beat = 0
        while not self._over.wait(min(self._limit / 10, 10.0)):
            beat += 1
            self._say(beat)
            now = time.monotonic()
            for i, value in enumerate(self._store.multi_get([str(i) for i in range(size)])):
                text = value.decode()
                place = int(text.split()[0])
                if place != places[i]:
                    places[i], moved[i] = place, now
                if text != said[i]:
                    said[i], heard[i] = text, now
            if self._alone:
                moved[rank()] = now
            elif now - moved[rank()] > self._limit and not self._over.is_set():
                self._end(self._hung(places, [now - t > self._limit / 2 for t in heard]), said)

    @staticmethod
    def _hung(places: list[int], silent: list[bool]) -> list[int]:
        """The processes that do not answer, or else those that are behind; none if all are at the same place."""
        if any(silent):
            return [i for i, each in enumerate(silent) if each]
        return [i for i, place in enumerate(places) if place < max(places)]

    def _end(self, hung: list[int], said: list[str]) -> None:
        if first_to_fail():
            who = ", ".join(f"process {i} on {said[i].split()[-1]}" for i in hung) or "an exchange between processes"
            what = f"{who} hangs: no progress for {self._limit / 60:g} minutes"
            do = "look at what it waits for (disk, network, memory); parallel.timeout says how long is too long"
            print(f"error: {what}; {do}", file=sys.stderr, flush=True)
        os._exit(1)  # the main thread waits for that process, and can hear nothing
