"""Ctrl-C and a request to end (SIGTERM) while training: heard at once, obeyed between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Within it, the first SIGINT or SIGTERM only puts its name into the list; a second one acts as it did before.

    A signal that is ignored stays so. Outside the main thread, where Python hears no signals, the list stays empty.
    """
    names: list[str] = []
    before = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, frame: FrameType | None) -> None:
        names.append(signal.Signals(number).name)
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, hear)
    try:
        yield names
    finally:
        restore()
