"""Checkpoints are complete or absent, whatever happens while one is written."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from r1ray.run import checkpoint
from r1ray.run.checkpoint import Checkpoints, Progress


class Crash(BaseException):
    """The process dies: nothing runs after it, not even cleanup."""


@pytest.fixture
def events() -> list[tuple[str, dict]]:
    return []


@pytest.fixture
def reopen(tmp_path: Path, events: list) -> Callable[..., Checkpoints]:
    """Opens the checkpoints as a new process does."""
    return lambda keep=2: Checkpoints(tmp_path, keep=keep, event=lambda kind, **fields: events.append((kind, fields)))


def save(checkpoints: Checkpoints, step: int, *, score: float | None = None, weights: str | None = None) -> None:
    with checkpoints.writing(
        Progress(step=step, updates=step, version=step, stream={"index": step}), score=score
    ) as path:
        (path / "hf").mkdir()
        (path / "hf" / "model.safetensors").write_text(weights or f"weights {step}")
        (path / "trainer" / "deep").mkdir(parents=True)
        (path / "trainer" / "deep" / "optimizer.pt").write_bytes(bytes(range(256)) * step)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))


def newest(checkpoints: Checkpoints) -> int:
    found = checkpoints.newest_valid()
    assert found is not None
    return found.progress.step


def test_a_checkpoint_is_read_as_it_was_written(reopen: Callable[..., Checkpoints], tmp_path: Path) -> None:
    assert reopen().newest_valid() is None
    save(reopen(), 10)
    found = reopen().newest_valid()
    assert found is not None
    assert found.progress == Progress(step=10, updates=10, version=10, stream={"index": 10})
    assert (found.hf / "model.safetensors").read_text() == "weights 10"
    assert found.path == tmp_path / "step_000010"
    assert os.readlink(tmp_path / "latest") == "step_000010"
    manifest = json.loads((found.path / "manifest.json").read_text())["files"]
    assert set(manifest) == {"hf/model.safetensors", "trainer/deep/optimizer.pt", "state.json"}
    assert manifest["hf/model.safetensors"]["bytes"] == 10


@pytest.mark.parametrize("again", [False, True], ids=["new step", "damaged step"])
def test_a_crash_at_any_point_leaves_the_newest_complete_one(
    again: bool, reopen: Callable[..., Checkpoints], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that touches the disk is the last one in turn; the checkpoint that is left must load."""
    calls = [
        (os, "replace"),
        (os, "fsync"),
        (Path, "rename"),
        (Path, "symlink_to"),
        (Path, "mkdir"),
        (Path, "write_text"),
    ]
    calls += [(Path, "unlink"), (shutil, "rmtree"), (json, "dumps"), (checkpoint, "seal")]
    crashes = 0
    for point in range(200):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        save(reopen(), 5)
        save(reopen(), 10)
        if again:
            (tmp_path / "step_000010" / "state.json").write_text("{")
        checkpoints = reopen()
        with monkeypatch.context() as patch:
            count = [0]
            for owner, name in calls:
                patch.setattr(owner, name, crashing(getattr(owner, name), point, count))
            try:
                save(checkpoints, 10 if again else 15)
                crashed = False
            except Crash:
                crashed = True
        found = reopen().newest_valid()
        assert found is not None
        allowed = {5, 10} if again else {10, 15}
        assert found.progress.step in allowed, f"after a crash at call {point}"
        assert (found.hf / "model.safetensors").read_text() == f"weights {found.progress.step}"
        assert os.readlink(tmp_path / "latest") == found.path.name
        assert len(steps(tmp_path)) <= 2 or again
        assert not list(tmp_path.glob(".*-step*")), "no incomplete checkpoint is left"
        under_their_names = [path for path in tmp_path.glob("step_*") if not (again and path.name == "step_000010")]
        assert all(checkpoint.find_damage(path) is None for path in under_their_names), "a final name means complete"
        save(reopen(), 20)
        assert newest(reopen()) == 20
        assert os.readlink(tmp_path / "latest") == "step_000020"
        assert len(steps(tmp_path)) <= 2
        if not crashed:
            assert found.progress.step == max(allowed)
            break
        crashes += 1
    assert crashes > 15


def test_a_checkpoint_that_was_sealed_and_not_renamed_is_complete(
    reopen: Callable[..., Checkpoints], tmp_path: Path, events: list
) -> None:
    save(reopen(), 5)
    save(reopen(), 10)
    (tmp_path / "step_000010").rename(tmp_path / ".writing-step_000010")
    assert newest(reopen()) == 10 and ("checkpoint_recovered" in dict(events))


def crashing(function: Callable, point: int, count: list[int]) -> Callable:
    """`function` until the `point`-th call of all patched functions; every later call crashes, as in a dead process."""

    def call(*args, **kwargs):
        count[0] += 1
        if count[0] > point:
            raise Crash
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize("file", ["hf/model.safetensors", "trainer/deep/optimizer.pt", "state.json", "manifest.json"])
def test_a_flipped_byte_is_detected_and_the_older_checkpoint_is_used(
    file: str, reopen: Callable[..., Checkpoints], tmp_path: Path, events: list
) -> None:
    save(reopen(), 5)
    save(reopen(), 10)
    damaged = tmp_path / "step_000010" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert newest(reopen()) == 5
    ((kind, fields),) = events
    assert kind == "checkpoint_skipped"
    assert fields["path"].endswith("step_000010")
    assert fields["reason"]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: (path / "hf/model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda path: (path / "hf/model.safetensors").write_text("w"), "1 bytes instead of 10"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
    ],
    ids=["file gone", "file cut", "no manifest"],
)
def test_damage_is_named(
    harm: Callable, reason: str, reopen: Callable[..., Checkpoints], tmp_path: Path, events: list
) -> None:
    save(reopen(), 10)
    harm(tmp_path / "step_000010")
    with pytest.raises(ValueError, match=reason):
        reopen().newest_valid()
    assert reason in events[0][1]["reason"]


def test_a_full_disk_leaves_the_older_checkpoint_and_names_the_remedy(
    reopen: Callable[..., Checkpoints], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(reopen(), 5)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    write_text = Path.write_text

    def full(self: Path, *args, **kwargs) -> int:
        if self.name == "state.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"step 10 .*No space left.*step_000005 is untouched.*resume=auto") as caught:
        save(reopen(), 10)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    assert newest(reopen()) == 5


def test_an_error_while_writing_leaves_no_files(reopen: Callable[..., Checkpoints], tmp_path: Path) -> None:
    checkpoints = reopen()
    with (
        pytest.raises(RuntimeError, match="rank 1 died"),
        checkpoints.writing(Progress(step=1, updates=1, version=1)) as path,
    ):
        (path / "hf").mkdir()
        raise RuntimeError("rank 1 died")
    assert list(tmp_path.iterdir()) == []


def test_keep_never_removes_the_best_or_the_latest(reopen: Callable[..., Checkpoints], tmp_path: Path) -> None:
    for step, score in ((1, 0.2), (2, 0.9), (3, 0.4), (4, None), (5, 0.8)):
        save(reopen(keep=1), step, score=score)
    assert steps(tmp_path) == [2, 5]
    assert os.readlink(tmp_path / "best") == "step_000002"
    assert os.readlink(tmp_path / "latest") == "step_000005"
    found = reopen().newest_valid()
    assert found is not None
    assert found.progress.score == 0.8
    save(reopen(keep=1), 6, score=0.95)
    assert steps(tmp_path) == [6]


def test_equal_or_undefined_score_is_not_better(reopen: Callable[..., Checkpoints], tmp_path: Path) -> None:
    save(reopen(), 1, score=float("nan"))
    assert not (tmp_path / "best").exists()
    save(reopen(), 2, score=0.5)
    save(reopen(), 3, score=0.5)
    assert os.readlink(tmp_path / "best") == "step_000002"


def test_resuming_from_an_older_step_removes_the_later_checkpoints(
    reopen: Callable[..., Checkpoints], tmp_path: Path
) -> None:
    for step in (5, 10, 15):
        save(reopen(keep=3), step)
    for step in (10, 15):
        (tmp_path / f"step_{step:06d}" / "state.json").write_text("{}")
    checkpoints = reopen(keep=3)
    assert newest(checkpoints) == 5
    save(checkpoints, 10, weights="written again")
    assert steps(tmp_path) == [5, 10]
    found = reopen().newest_valid()
    assert found is not None
    assert (found.hf / "model.safetensors").read_text() == "written again"
