"""Every process of a local run gets SIGTERM at once, as from systemd (KillMode=control-group) or a batch system."""

import signal
import time
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
    "deterministic=true",
]


def test_the_last_step_is_saved(tmp_path: Path) -> None:
    run = Run(tmp_path, OVERRIDES)
    with ended(run):
        end = time.monotonic() + 200
        while not run.rows() or run.rows()[-1]["step"] < 3:
            assert run.process.poll() is None and time.monotonic() < end, run.output()
            time.sleep(0.1)
        begun = time.monotonic()
        for member in run.family():
            with suppress(psutil.Error):
                member.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 75, run.output()
        assert time.monotonic() - begun < 30
    assert "stopped by SIGTERM" in run.output()
    assert "everything is saved: to continue, run the same command with resume=auto" in run.output(), run.output()
    saved = (run.folder / "stages/rl/checkpoints").glob("step_*")
    assert max(int(folder.name.removeprefix("step_")) for folder in saved) == run.rows()[-1]["step"]
    assert not run.left_behind(within_s=10)
