"""What the stages share: which references outlive their checkpoints, what goes on to the next, how replies are sampled."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from r1ray.check import load
from r1ray.cli import compose
from r1ray.run.checkpoint import Progress
from r1ray.run.directory import RunDir
from r1ray.stages.context import StageContext, result_of
from r1ray.stages.rl import training_sampling


def test_the_reference_of_every_kept_checkpoint_stays(tmp_path: Path) -> None:
    cfg = SimpleNamespace(checkpoint=SimpleNamespace(keep=2))
    context = StageContext(name="rl", cfg=cfg, run=RunDir(tmp_path), model_path="base")  # type: ignore[arg-type]
    checkpoints = context.checkpoints()
    for step, reference_updates in enumerate([10, 20, 20, 30], start=1):
        context.reference_folder(reference_updates).mkdir(parents=True, exist_ok=True)
        progress = Progress(step=step, updates=step, version=step, reference_updates=reference_updates)
        with checkpoints.writing(progress):
            pass
        context.forget_references(checkpoints, first=context.model_path)
    left = sorted(folder.name for folder in (tmp_path / "stages/rl/reference").iterdir())
    assert left == ["updates_000020", "updates_000030"]
    (tmp_path / "stages/rl/checkpoints/step_000003/state.json").write_text("{")
    context.forget_references(checkpoints, first=context.model_path)
    assert not context.reference_folder(20).exists()


def test_the_reference_with_which_workers_start_again_stays(tmp_path: Path) -> None:
    cfg = SimpleNamespace(checkpoint=SimpleNamespace(keep=1))
    context = StageContext(name="rl", cfg=cfg, run=RunDir(tmp_path), model_path="base")  # type: ignore[arg-type]
    context.reference_folder(10).mkdir(parents=True)
    context.forget_references(context.checkpoints(), first=str(context.reference_folder(10)))
    assert context.reference_folder(10).exists()


def test_the_next_stage_starts_from_the_best_checkpoint_or_else_the_last(tmp_path: Path) -> None:
    cfg = SimpleNamespace(checkpoint=SimpleNamespace(keep=3))
    run = RunDir(tmp_path)
    checkpoints = StageContext(name="short", cfg=cfg, run=run, model_path="base").checkpoints()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stage 'short' left no checkpoint"):
        result_of(run, "short")
    for step in (1, 2):
        with checkpoints.writing(Progress(step=step, updates=step, version=step)):
            pass
    assert result_of(run, "short") == checkpoints.folder / "step_000002/hf"
    for step, score in ((3, 0.5), (4, 0.4)):
        with checkpoints.writing(Progress(step=step, updates=step, version=step), score=score):
            pass
    assert result_of(run, "short") == checkpoints.folder / "step_000003/hf"


def test_temperatures_change_at_their_steps() -> None:
    cfg = load(compose(["rollout.temperature_schedule={10: 1.2, 20: 0.8}", "rollout.max_response_length=99"])).config
    found = {step: training_sampling(cfg.rollout, step) for step in (1, 9, 10, 19, 20, 40)}
    assert [sampling.temperature for sampling in found.values()] == [1.0, 1.0, 1.2, 1.2, 0.8, 0.8]
    assert {sampling.max_tokens for sampling in found.values()} == {99}
