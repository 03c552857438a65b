"""What the stages share: which references outlive the checkpoints that name them."""

from pathlib import Path
from types import SimpleNamespace

from r1ray.run.checkpoint import Progress
from r1ray.run.directory import RunDir
from r1ray.stages.context import StageContext


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
