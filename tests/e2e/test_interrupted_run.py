"""A run that its terminal interrupts, or that loses its driver: what is saved, what is printed, what still runs."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from real_run import Run, ended

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
OVERRIDES = [
    "scale=smoke",
    "steps=1000",
    "checkpoint.every_steps=500",
    "eval.before_training=false",
    "eval.every_steps=0",
]


def wait_for_rows(run: Run, num: int) -> None:
    end = time.monotonic() + 200
    while len(run.rows()) < num:
        assert run.process.poll() is None and time.monotonic() < end, run.output()
        run.family()
        time.sleep(0.2)


def to_the_group(run: Run, number: signal.Signals) -> None:
    os.killpg(run.process.pid, number)


def to_every_process(run: Run, number: signal.Signals) -> None:
    for member in run.family():
        with suppress(psutil.Error):
            member.send_signal(number)


@pytest.mark.parametrize(
    ("send", "number"),
    [
        (to_the_group, signal.SIGINT),
        pytest.param(to_the_group, signal.SIGTERM, marks=pytest.mark.slow),
        (to_every_process, signal.SIGTERM),
    ],
)
def test_a_signal_to_many_processes_saves_the_last_step(
    tmp_path: Path, send: Callable[[Run, signal.Signals], None], number: signal.Signals
) -> None:
    """Ctrl-C and `timeout` signal the process group, systemd and batch systems every process; Ray must outlive it until the
    checkpoint is saved.
    """
    run = Run(tmp_path, OVERRIDES)
    with ended(run):
        wait_for_rows(run, 2)
        send(run, number)
        assert run.process.wait(120) == 75, run.output()
    assert "Traceback" not in run.output() and f"stopped by {number.name}" in run.output()
    assert "everything is saved: to continue, run the same command with resume=auto" in run.output()
    saved = sorted((run.folder / "stages/rl/checkpoints").glob("step_*"))
    assert [int(folder.name.removeprefix("step_")) for folder in saved] == [run.rows()[-1]["step"]]
    assert not run.left_behind()
    run.resume()
    with ended(run):
        wait_for_rows(run, len(run.rows()) + 1)
        run.process.kill()
        run.process.wait(10)
        assert not run.left_behind(within_s=30), "Ray's processes end with the driver"


def test_a_second_interrupt_ends_the_run_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, OVERRIDES)
    with ended(run):
        wait_for_rows(run, 1)
        os.killpg(run.process.pid, signal.SIGINT)
        time.sleep(0.1)
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.process.wait(5) == -signal.SIGINT, run.output()
        assert not run.left_behind(within_s=30)
