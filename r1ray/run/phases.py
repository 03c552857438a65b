"""Lines on the console that name the phases of a start, so that a run that takes a minute to start is not silent.

r1ray: starting Ray
r1ray: starting Ray took 4.1 s
r1ray: starting 2 engines, 2 trainers, 1 reference worker, 2 reward workers
r1ray: loading data
r1ray: loading data took 1.2 s
r1ray: problems for training: countdown 2000
r1ray: 2 reward workers ready after 9 s
"""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

WORKERS: Mapping[str, str] = {
    "rollout": "engine",
    "judge": "judge",
    "policy": "trainer",
    "critic": "critic trainer",
    "prm": "process reward model trainer",
    "reference": "reference worker",
    "reward": "reward worker",
}
"""{role: one of its workers in words}."""


def announce(text: str) -> None:
    print(f"r1ray: {text}", flush=True)


@contextmanager
def phase(name: str) -> Generator[None]:
    """Announce the phase, and its seconds when it has ended without an error."""
    announce(name)
    start = time.monotonic()
    yield
    announce(f"{name} took {time.monotonic() - start:.1f} s")


def counted(role: str, number: int) -> str:
    """Example: `counted("rollout", 2)` is "2 engines"."""
    return f"{number} {WORKERS[role]}{'s' if number > 1 else ''}"


def announce_ready(role: str, number: int, *, seconds: float) -> None:
    announce(f"{counted(role, number)} ready after {seconds:.0f} s")
