"""What stages share: kept references, where the next stage starts, how completions are sampled."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from algo_samples import algo_config

from r1ray.check import CheckedStage, load
from r1ray.cli import compose
from r1ray.evaluator import evaluator_of
from r1ray.run.checkpoint import Progress
from r1ray.run.directory import RunDir
from r1ray.run.seal import seal
from r1ray.stages.context import StageContext, final_checkpoint
from r1ray.stages.pipeline import context_of
from r1ray.stages.rl import training_sampling


def test_references_of_kept_checkpoints_are_kept(tmp_path: Path) -> None:
    cfg = SimpleNamespace(checkpoint=SimpleNamespace(keep=2))
    context = StageContext(name="rl", cfg=cfg, run=RunDir(tmp_path), model_path="base")  # type: ignore[arg-type]
    checkpoints = context.checkpoints()
    for step, reference_updates in enumerate([10, 20, 20, 30], start=1):
        context.reference_folder(reference_updates).mkdir(parents=True, exist_ok=True)
        progress = Progress(step=step, updates=step, version=step, reference_updates=reference_updates)
        with checkpoints.writing(progress):
            pass
        context.remove_unused_references(checkpoints, first=context.model_path)
    left = sorted(folder.name for folder in (tmp_path / "stages/rl/reference").iterdir())
    assert left == ["updates_000020", "updates_000030"]
    (tmp_path / "stages/rl/checkpoints/step_000003/state.json").write_text("{")
    context.remove_unused_references(checkpoints, first=context.model_path)
    assert not context.reference_folder(20).exists()


def test_reference_that_restarted_workers_load_is_kept(tmp_path: Path) -> None:
    cfg = SimpleNamespace(checkpoint=SimpleNamespace(keep=1))
    context = StageContext(name="rl", cfg=cfg, run=RunDir(tmp_path), model_path="base")  # type: ignore[arg-type]
    context.reference_folder(10).mkdir(parents=True)
    context.remove_unused_references(context.checkpoints(), first=str(context.reference_folder(10)))
    assert context.reference_folder(10).exists()


def test_next_stage_starts_from_the_best_or_last_checkpoint(tmp_path: Path) -> None:
    cfg = SimpleNamespace(checkpoint=SimpleNamespace(keep=3))
    run = RunDir(tmp_path)
    checkpoints = StageContext(name="short", cfg=cfg, run=run, model_path="base").checkpoints()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stage 'short' left no checkpoint"):
        final_checkpoint(run, "short")
    for step in (1, 2):
        with checkpoints.writing(Progress(step=step, updates=step, version=step)):
            pass
    assert final_checkpoint(run, "short").hf == checkpoints.folder / "step_000002/hf"
    for step, score in ((3, 0.5), (4, 0.4)):
        with checkpoints.writing(Progress(step=step, updates=step, version=step), score=score):
            pass
    assert final_checkpoint(run, "short").hf == checkpoints.folder / "step_000003/hf"


class Folders:
    """A trainer group that only writes folders."""

    def save(self, path: str) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)

    def export_hf(self, path: str) -> None:
        self.save(path)
        (Path(path) / "config.json").write_text("{}")


TRAINERS = {"policy": Folders(), "critic": Folders(), "prm": Folders()}
TWO = "+stages.second={kind: rl, after: rl, config: {steps: 9}}"


def save(stage: CheckedStage, run: RunDir, step: int) -> Path:
    """A checkpoint of that step; its score is the number of the step."""
    context = context_of(stage, run)
    checkpoints = context.checkpoints()
    metrics = {"solve_rate": float(step)}
    context.save(checkpoints, TRAINERS, Progress(step=step, updates=step, version=step), metrics)  # type: ignore[arg-type]
    return checkpoints.folder / f"step_{step:06d}"


def stages_of(tmp_path: Path, *overrides: str) -> tuple[list[CheckedStage], RunDir]:
    (tmp_path / "run").mkdir()
    best = ["steps=5", "checkpoint.best_metric=solve_rate"]
    return load(compose([TWO, *best, f"run_dir={tmp_path}/run", *overrides])).stages, RunDir(tmp_path / "run")


def test_auxiliary_models_are_exported_where_another_stage_can_start_from_them(tmp_path: Path) -> None:
    (first, second), run = stages_of(tmp_path)
    for stage, step, exported in ((first, 2, True), (second, 2, False), (second, 9, True)):
        folder = save(stage, run, step)
        assert (folder / "hf/config.json").exists()
        for role in ("critic", "prm"):
            assert (folder / role).exists()
            assert (folder / role / "hf/config.json").exists() == exported, (stage.name, step)


def test_critic_starts_from_the_previous_stage(tmp_path: Path) -> None:
    (first, second), run = stages_of(tmp_path, "algo=ppo")
    assert context_of(first, run).cfg.critic.path is None
    left = save(first, run, 3)
    context = context_of(second, run)
    assert context.model_path == str(left / "hf")
    assert context.cfg.critic.path == str(left / "critic/hf")
    assert context.cfg.prm.path is None, "its rewards are relative to the reference, which is a different model now"
    ours = second.config.critic.model_copy(update={"path": "builtin"})
    named = second._replace(config=second.config.model_copy(update={"critic": ours}))
    assert context_of(named, run).cfg.critic.path == "builtin"


def test_stage_after_one_without_a_critic_starts_a_new_critic(tmp_path: Path) -> None:
    (first, second), run = stages_of(tmp_path)
    left = save(first, run, 3)
    assert (left / "critic/hf").exists() and context_of(second, run).cfg.critic.path is None
    shutil.rmtree(left / "critic")
    seal(left)
    cfg = second.config.model_copy(update={"algo": algo_config("ppo")})
    assert context_of(second._replace(config=cfg), run).cfg.critic.path is None


def test_temperature_schedule_changes_at_its_steps() -> None:
    cfg = load(compose(["rollout.temperature_schedule={10: 1.2, 20: 0.8}", "rollout.max_response_length=99"])).config
    found = {step: training_sampling(cfg.rollout, step) for step in (1, 9, 10, 19, 20, 40)}
    assert [sampling.temperature for sampling in found.values()] == [1.0, 1.0, 1.2, 1.2, 0.8, 0.8]
    assert {sampling.max_tokens for sampling in found.values()} == {99}


def test_training_and_evaluation_use_the_same_stop_texts() -> None:
    cfg = load(compose(["rollout.stop=['</answer>', 'User:']"])).config
    evaluator = evaluator_of(
        cfg, workers=None, sets={}, record=lambda *_: None, reward_errors=None, stopping=lambda: False
    )  # type: ignore[arg-type]
    assert training_sampling(cfg.rollout, 1).stop == evaluator.sampling.stop == ("</answer>", "User:")
