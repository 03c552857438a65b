"""`python -m r1ray.main` as its user runs it, for tests that inject faults into it or stop it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

REPO = Path(__file__).parents[2]


class Run:
    """A run as its user sees it: a command, its output, its directory; also every process that it has ever had."""

    def __init__(self, folder: Path, overrides: Sequence[str], *, env: Mapping[str, str] = os.environ) -> None:
        self.folder = folder / "runs/run"
        self._output = folder / "output"
        self._seen: dict[int, float] = {}
        self._command = [sys.executable, "-m", "r1ray.main", "name=run", "log.wandb=disabled", *overrides]
        self._cwd, self._env = folder, env
        self.process = self._start()

    def _start(self, *more: str) -> "subprocess.Popen[bytes]":
        with self._output.open("a") as output:
            return subprocess.Popen(
                [*self._command, *more],
                cwd=self._cwd,
                env={**self._env, "PYTHONPATH": str(REPO)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def resume(self) -> None:
        """Start the same command with resume=auto, as a user, a job or KubeRay would."""
        self.process = self._start("resume=auto")

    def family(self) -> list[psutil.Process]:
        """The driver and all running processes of its Ray."""
        try:
            driver = psutil.Process(self.process.pid)
            members = [driver, *driver.children(recursive=True)]
            self._seen |= {member.pid: member.create_time() for member in members}
        except psutil.NoSuchProcess:
            return []
        return members

    def left_behind(self, *, within_s: float = 10) -> list[str]:
        """Names of the processes that still run after `within_s`."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            alive = []
            for pid, created in self._seen.items():
                try:
                    process = psutil.Process(pid)
                    if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                        alive.append(f"{pid} {process.name()}")
                except psutil.NoSuchProcess:
                    continue
            if not alive:
                return []
            time.sleep(0.5)
        return alive

    def kill_family(self) -> None:
        """Kill all processes, as when the machine fails."""
        family = self.family()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for member in family:
                try:
                    member.send_signal(number)
                except psutil.NoSuchProcess:
                    continue
        self.process.wait(30)

    def rows(self) -> list[dict[str, Any]]:
        return json_lines(self.folder / "stages/rl/metrics.jsonl")

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        found = json_lines(self.folder / "events.jsonl")
        return [event for event in found if kind in (None, event["kind"])]

    def output(self) -> str:
        return self._output.read_text()[-3000:]


@contextmanager
def ended(run: Run) -> Iterator[None]:
    """Ends all processes of the run, whatever happens."""
    try:
        yield
    finally:
        if run.process.poll() is None:
            run.kill_family()


def json_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # still being written
    return found
