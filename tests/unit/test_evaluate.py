"""Evaluating a model or a finished run: what the command accepts, and which model of a run it loads."""

import os
import shutil
from pathlib import Path

import pytest

from r1ray import builtin
from r1ray.check import CheckedRun
from r1ray.cli import check_command_line
from r1ray.model.files import folder_of
from r1ray.plan import describe


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two stages; the first one was saved later in the name's order, and has a best checkpoint."""
    monkeypatch.chdir(tmp_path)
    checkpoints = {stage: tmp_path / "runs" / "mine" / "stages" / stage / "checkpoints" for stage in ("warm", "rl")}
    for number, (stage, step) in enumerate([("warm", 8), ("rl", 4), ("rl", 8)]):
        model = checkpoints[stage] / f"step_{step:06d}" / "hf"
        shutil.copytree(builtin.path(), model, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        (model.parent / "config.yaml").write_text("model: {template: tinyzero}\n")
        os.utime(model.parent, (number, number))
    for stage, link, step in (("warm", "best", 8), ("warm", "latest", 8), ("rl", "best", 4), ("rl", "latest", 8)):
        (checkpoints[stage] / link).symlink_to(f"step_{step:06d}")
    return tmp_path / "runs" / "mine"


def checked(*overrides: str) -> CheckedRun:
    (run,) = check_command_line(["stages=eval", "name=evaluation", *overrides])
    return run


def test_a_run_is_evaluated_by_its_directory(run: Path) -> None:
    stage = run / "stages" / "rl" / "checkpoints"
    assert folder_of("runs/mine") == "runs/mine/stages/rl/checkpoints/best/hf"
    assert folder_of(str(run / "stages" / "warm")) == str(run / "stages/warm/checkpoints/best/hf")
    assert folder_of(str(stage / "step_000008")) == str(stage / "step_000008/hf")
    (stage / "best").unlink()
    assert folder_of(str(run)) == str(stage / "latest/hf")
    assert folder_of("org/model") == "org/model" and folder_of(str(run / "logs")) == str(run / "logs")


def test_an_evaluation_needs_no_metric_for_checkpoints(run: Path) -> None:
    """And a template that differs from the one of the training is noted."""
    found = checked("model.path=runs/mine", "eval=gpqa")
    (note,) = [note for note in found.notes if "template" in note]
    assert note == "runs/mine was trained with model.template=tinyzero; its prompts now have model.template=r1_zero"
    assert "data       eval: gpqa" in describe(found)
    assert not [note for note in checked("model.path=runs/mine", "model.template=tinyzero").notes if "template" in note]
