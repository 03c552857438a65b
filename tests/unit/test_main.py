"""Exit codes and messages of `python -m r1ray.main`."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1ray import main
from r1ray.failures import TrainersLost
from r1ray.run import directory, stop
from r1ray.run.directory import RunDir
from r1ray.stages import pipeline

pytestmark = pytest.mark.usefixtures("signals_as_before")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `main` with another opening of the run directory and other stages; returns the argument of sys.exit."""

    def run(*, opens: Callable[[RunDir], None] = lambda run: None, stages: Callable[[], None] = lambda: None) -> Any:
        (tmp_path / "logs").mkdir()

        def open_run(path: str, **about: Any) -> RunDir:
            opens(RunDir(tmp_path))
            return RunDir(tmp_path)

        monkeypatch.setattr(directory, "open_run", open_run)
        monkeypatch.setattr(pipeline, "run_stages", lambda checked, run: stages())
        config = SimpleNamespace(run_dir=str(tmp_path), fault=[])
        with pytest.raises(SystemExit) as caught:
            main.main(SimpleNamespace(config=config, raw={}, overrides=[]))  # type: ignore[arg-type]
        return caught.value.code

    return run


def fails(error: Exception) -> Callable[..., None]:
    def fail(*args: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_run_directory_that_cannot_be_made_is_one_message(number: int, start: Callable, tmp_path: Path) -> None:
    message = start(opens=fails(OSError(number, os.strerror(number), "/proc/x")))
    assert message.startswith(f"r1ray: run_dir={tmp_path} cannot be used: ") and os.strerror(number) in message
    assert "Traceback" not in message and "\n" not in message


def test_sigterm_before_the_stages_is_a_stop(start: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    """Imports, and the start of Ray, take seconds."""
    code = start(
        opens=lambda run: os.kill(os.getpid(), signal.SIGTERM),
        stages=stop.raise_if_stop_requested,
    )
    assert code == stop.EXIT_CODE
    assert "stopped by SIGTERM" in capsys.readouterr().err


def test_the_cause_is_shown_when_the_traceback_cannot_be_written(
    start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_text", fails(OSError(errno.ENOSPC, "No space left on device")))
    assert start(stages=fails(RuntimeError("the cause"))).startswith("r1ray: the cause")


@pytest.mark.parametrize("asked", [True, False])
def test_a_signal_that_ends_workers_too_is_a_stop_without_a_save(
    asked: bool, start: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """systemd and some job managers signal every process of a run at once."""
    code = start(
        opens=lambda run: os.kill(os.getpid(), signal.SIGTERM) if asked else None,
        stages=fails(TrainersLost("policy-0 died during 'update'")),
    )
    if asked:
        assert code == stop.EXIT_CODE
        said = capsys.readouterr().err
        assert (
            "stopped by SIGTERM, but the last step could not be saved: policy-0 died" in said and "resume=auto" in said
        )
    else:
        assert "policy-0 died" in code
