"""Wall-clock time of the phases of one step."""

import time
from collections.abc import Generator
from contextlib import contextmanager


class Clock:
    """`with clock("train"): ...` adds to `clock.seconds["train"]`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Generator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
