"""Each of Ray's own processes is killed in the middle of a run: the run ends with the cause, or goes on where Ray does."""

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from real_run import Run, ended

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
OVERRIDES = [
    "scale=smoke",
    "steps=1000",
    "checkpoint.every_steps=2",
    "eval.before_training=false",
    "eval.every_steps=0",
    "deterministic=true",
]
SURVIVED = ("dashboard/dashboard.py", "_private/log_monitor.py", "_private/monitor.py")
"""Parts of command lines of processes without which Ray goes on."""
VITAL = {
    "RuntimeEnvAgent": "Ray's raylet (process {raylet}) has ended (exit code 0) because its runtime env agent had ended",
    "raylet/raylet": "Ray's raylet (process {raylet}) was ended by SIGKILL",
    "DashboardAgent": "Ray's raylet (process {raylet}) has ended (exit code 0) because its dashboard agent had ended",
    "gcs/gcs_server": "Ray's GCS server (process {pid}) was ended by SIGKILL",
}
"""{part of the command line: the cause that the run gives}."""
CHANGING = ("time/", "tokens_per_second/", "memory/", "seconds", "utilisation")


def wait_for_step(run: Run, step: int) -> None:
    end = time.monotonic() + 200
    while not run.rows() or run.rows()[-1]["step"] < step:
        assert run.process.poll() is None and time.monotonic() < end, run.output()
        time.sleep(0.1)


def process_of(run: Run, part: str) -> psutil.Process:
    for member in run.family():
        with suppress(psutil.Error):  # one of those killed before
            if part in " ".join(member.cmdline()):
                return member
    raise AssertionError(f"no process {part}")


def numbers(run: Run) -> dict[int, dict[str, float]]:
    keep = {row["step"]: row for row in run.rows()}
    return {step: {k: v for k, v in row.items() if not any(c in k for c in CHANGING)} for step, row in keep.items()}


@pytest.mark.parametrize(
    "parts",
    [("RuntimeEnvAgent", "gcs/gcs_server"), pytest.param(("raylet/raylet", "DashboardAgent"), marks=pytest.mark.slow)],
)
def test_the_run_ends_with_the_cause_and_goes_on_with_the_same_numbers(parts: tuple[str, ...], tmp_path: Path) -> None:
    run, step = Run(tmp_path, OVERRIDES), 3
    with ended(run):
        wait_for_step(run, 1)
        for part in SURVIVED:
            process_of(run, part).kill()
        for part in parts:
            wait_for_step(run, step)
            raylet, killed = process_of(run, "raylet/raylet"), process_of(run, part)
            killed.kill()
            begun = time.monotonic()
            assert run.process.wait(60) == 1, run.output()
            assert time.monotonic() - begun < 30
            assert VITAL[part].format(raylet=raylet.pid, pid=killed.pid) in run.output(), run.output()
            assert "resume=auto continues" in run.output()
            assert any("Ray's" in event["error"] for event in run.events("run_failed"))
            assert not run.left_behind()
            before, step = numbers(run), step + 2
            run.resume()
            wait_for_step(run, step)
            repeated = {s: row for s, row in numbers(run).items() if s in before}
            assert repeated == {s: before[s] for s in repeated} and max(repeated) == max(before)


def test_a_dead_address_is_named(tmp_path: Path) -> None:
    begun = time.monotonic()
    run = Run(tmp_path, OVERRIDES, env={**os.environ, "RAY_ADDRESS": "127.0.0.1:9"})
    with ended(run):
        assert run.process.wait(60) == 1
        assert time.monotonic() - begun < 45
        assert "no Ray cluster answers at 127.0.0.1:9 (Connection refused)" in run.output()
