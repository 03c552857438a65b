"""`latest`, `best` and the number of checkpoints follow from the sealed checkpoints alone, whatever a crash or damage left."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from r1ray.run.checkpoint import Checkpoints, Progress
from r1ray.run.directory import RunDir
from r1ray.stages.context import StageContext, final_checkpoint


class Crash(BaseException):
    """The process dies: nothing runs after it, not even cleanup."""


def opened(folder: Path, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, keep=keep, event=lambda kind, **fields: None)


def save(checkpoints: Checkpoints, step: int, score: float | None = None) -> None:
    with checkpoints.writing(Progress(step=step, updates=step, version=step), score=score) as path:
        (path / "hf").mkdir()
        (path / "hf" / "model.safetensors").write_text(f"weights {step}")


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))


def link(folder: Path, name: str) -> int | None:
    path = folder / name
    return int(os.readlink(path).removeprefix("step_")) if path.is_symlink() else None


def damage(folder: Path, step: int) -> None:
    """Flip one byte: the size stays."""
    path = folder / f"step_{step:06d}" / "hf" / "model.safetensors"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def newest(checkpoints: Checkpoints) -> int:
    found = checkpoints.newest_valid()
    assert found is not None
    return found.progress.step


SCORES = {4: 0.7, 8: 0.5, 12: 0.9}


@pytest.mark.parametrize("crash_before", ["latest", "best"])
def test_links_that_a_crash_left_behind_are_repaired_at_the_next_start(
    crash_before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (4, 8):
        save(opened(tmp_path), step, SCORES[step])
    assert (link(tmp_path, "latest"), link(tmp_path, "best")) == (8, 4)
    replace = os.replace

    def crashing(source: Path, target: Path) -> None:
        if Path(target).name == crash_before:
            raise Crash
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crashing)
        with pytest.raises(Crash):
            save(opened(tmp_path), 12, SCORES[12])
    opened(tmp_path)
    assert (link(tmp_path, "latest"), link(tmp_path, "best")) == (12, 12)


@pytest.mark.parametrize("lost", [("latest",), ("best",), ("latest", "best")], ids=" and ".join)
def test_links_that_are_gone_or_wrong_are_derived_again(lost: tuple[str, ...], tmp_path: Path) -> None:
    for step, score in SCORES.items():
        save(opened(tmp_path, keep=3), step, score)
    for name in lost:
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("step_000004")
    opened(tmp_path, keep=3)
    assert (link(tmp_path, "latest"), link(tmp_path, "best")) == (12, 12)
    for name in lost:
        (tmp_path / name).unlink()
    opened(tmp_path, keep=3)
    assert (link(tmp_path, "latest"), link(tmp_path, "best")) == (12, 12)


def test_best_is_the_first_with_the_highest_score(tmp_path: Path) -> None:
    for step, score in {1: 0.2, 2: 0.9, 3: None, 4: float("nan"), 5: 0.9, 6: 0.3}.items():
        save(opened(tmp_path, keep=9), step, score)
    (tmp_path / "best").unlink()
    opened(tmp_path, keep=9)
    assert link(tmp_path, "best") == 2


def test_no_link_to_a_best_without_any_score(tmp_path: Path) -> None:
    save(opened(tmp_path), 1)
    (tmp_path / "best").symlink_to("step_000009")
    opened(tmp_path)
    assert link(tmp_path, "best") is None


@pytest.mark.parametrize("done", range(4))
def test_pruning_that_was_cut_short_is_finished_at_the_next_start(
    done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after some of the calls that remove steps 4 and 8."""
    for step in (4, 8, 12):
        save(opened(tmp_path, keep=3), step, SCORES[step])
    checkpoints = opened(tmp_path, keep=3)
    checkpoints.keep = 1
    calls = iter(range(9))

    def crashing(function: Callable) -> Callable:
        def call(path: Path, *args, **kwargs):
            removes = "step_000004" in f"{path}" or "step_000008" in f"{path}"
            if removes and next(calls) >= done:
                raise Crash
            return function(path, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", crashing(shutil.rmtree))
        patch.setattr(Path, "rename", crashing(Path.rename))
        with pytest.raises(Crash):
            save(checkpoints, 16)
    opened(tmp_path, keep=1)
    assert steps(tmp_path) == [12, 16]
    assert not list(tmp_path.glob(".*-step*"))


def test_pruning_keeps_the_whole_checkpoint_and_not_the_damaged_one(tmp_path: Path) -> None:
    for step in (5, 10):
        save(opened(tmp_path), step)
    damage(tmp_path, 10)
    checkpoints = opened(tmp_path)
    assert newest(checkpoints) == 5
    save(checkpoints, 12)
    assert steps(tmp_path) == [5, 12]


def test_damage_between_two_whole_checkpoints_is_found_before_an_older_one_is_removed(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(opened(tmp_path, keep=3), step)
    damage(tmp_path, 10)
    checkpoints = opened(tmp_path, keep=3)
    assert newest(checkpoints) == 15
    save(checkpoints, 20)
    assert steps(tmp_path) == [5, 15, 20]


def test_a_damaged_best_is_replaced_by_the_best_of_the_whole_ones(tmp_path: Path) -> None:
    for step, score in {5: 0.9, 10: 0.5, 15: 0.4}.items():
        save(opened(tmp_path, keep=3), step, score)
    damage(tmp_path, 5)
    checkpoints = opened(tmp_path, keep=1)
    assert newest(checkpoints) == 15
    save(checkpoints, 20, 0.3)
    assert steps(tmp_path) == [10, 20]
    assert (link(tmp_path, "latest"), link(tmp_path, "best")) == (20, 10)


def test_a_smaller_keep_at_the_next_start_removes_nothing_before_damage_is_looked_for(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(opened(tmp_path, keep=3), step)
    damage(tmp_path, 10)
    damage(tmp_path, 15)
    checkpoints = opened(tmp_path, keep=1)
    assert newest(checkpoints) == 5
    assert link(tmp_path, "latest") == 5


@pytest.mark.parametrize("harm", ["killed before the links", "damaged", "cut"])
def test_next_stage_never_starts_from_an_older_or_a_damaged_model(harm: str, tmp_path: Path) -> None:
    cfg = SimpleNamespace(checkpoint=SimpleNamespace(keep=3))
    run = RunDir(tmp_path)
    checkpoints = StageContext(name="sft", cfg=cfg, run=run, model_path="base").checkpoints()  # type: ignore[arg-type]
    for step in (4, 8, 12):
        save(checkpoints, step)
    if harm == "killed before the links":
        (checkpoints.folder / "latest").unlink()
        (checkpoints.folder / "latest").symlink_to("step_000008")
    elif harm == "damaged":
        damage(checkpoints.folder, 12)
    else:
        (checkpoints.folder / "step_000012/hf/model.safetensors").write_text("")
    expected = 12 if harm.startswith("killed") else 8
    assert final_checkpoint(run, "sft").progress.step == expected
    if expected == 8:
        (skipped,) = run.read_events("checkpoint_skipped")
        assert skipped["path"].endswith("step_000012") and "model.safetensors" in skipped["reason"]


def test_every_damaged_checkpoint_is_named_when_none_is_left(tmp_path: Path) -> None:
    """A run must not start over next to checkpoints whose files may still be put back."""
    for step in (5, 10):
        save(opened(tmp_path), step)
        damage(tmp_path, step)
    with pytest.raises(ValueError, match=r"(?s)step_000010.*step_000005.*put back .*name=ANOTHER"):
        opened(tmp_path).newest_valid()
    run = RunDir(tmp_path / "run")
    folder = run.stage("sft").checkpoints
    save(opened(folder), 5)
    damage(folder, 5)
    with pytest.raises(ValueError, match="step_000005"):
        final_checkpoint(run, "sft")
