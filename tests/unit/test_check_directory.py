"""Run directories that hold something: what is refused, what is used again, and what a resume says before it starts."""

import errno
import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from r1ray.check import CheckedRun, ConfigError
from r1ray.cli import check_command_line, run_cli
from r1ray.plan import describe
from r1ray.run import ownership
from r1ray.run.checkpoint import Checkpoints, Progress
from r1ray.run.directory import LOCK, RunDir

Holds = Callable[..., RunDir]


def check(run: RunDir, *overrides: str) -> CheckedRun:
    (checked,) = check_command_line([f"run_dir={run.path}", *overrides])
    return checked


def refusal(run: RunDir, *overrides: str) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        check(run, *overrides)
    (mistake,) = caught.value.mistakes
    assert mistake.key == "run_dir" or mistake.key in {override.partition("=")[0] for override in overrides}
    return mistake.rule, mistake.remedy


@pytest.fixture
def holds(tmp_path: Path) -> Holds:
    """A run directory of the default configuration with `overrides`, logged steps and checkpoints."""

    def make(*overrides: str, logged: int = 0, saved: tuple[int, ...] = (), stage: str = "rl") -> RunDir:
        run = RunDir(tmp_path / "run")
        config = yaml.safe_dump(check(run, *overrides).raw)
        (run.path / "logs").mkdir(parents=True, exist_ok=True)
        run.stage(stage).path.mkdir(parents=True)
        run.config.write_text(config)
        rows = "".join(json.dumps({"step": step}) + "\n" for step in range(1, logged + 1))
        run.stage(stage).metrics.write_text(rows)
        checkpoints = Checkpoints(run.stage(stage).checkpoints, keep=9, event=lambda *args, **fields: None)
        for step in saved:
            with checkpoints.writing(Progress(step=step, updates=step, version=step)) as folder:
                (folder / "hf").mkdir()
                (folder / "hf/model.safetensors").write_text(f"weights {step}")
                (folder / "config.yaml").write_text(config)
        return run

    return make


def resume_notes(checked: CheckedRun) -> list[str]:
    return [note.removeprefix("resume: ") for note in checked.notes if note.startswith("resume: ")]


# --- a name that a failed start occupies ---


@pytest.mark.parametrize("left", ["config only", "empty metrics", "unfinished checkpoint", "torn row", "broken config"])
@pytest.mark.parametrize("resume", ["never", "auto"])
def test_a_start_without_a_finished_step_does_not_occupy_the_name(left: str, resume: str, holds: Holds) -> None:
    run = holds("seed=4")
    if left == "unfinished checkpoint":
        (run.stage("rl").checkpoints / ".writing-step_000001").mkdir()
    elif left == "torn row":
        run.stage("rl").metrics.write_text('{"step": 1, "rew')
    elif left == "broken config":
        run.config.write_text("{seed: [0")
    elif left == "config only":
        run.stage("rl").metrics.unlink()
    checked = check(run, f"resume={resume}", "seed=5", "model.path=builtin")
    assert checked.config.seed == 5, "nothing was trained, so the corrected command may change anything"
    assert len(resume_notes(checked)) == (resume == "auto")


@pytest.mark.parametrize(
    ("logged", "saved", "reached"),
    [(1, (), "stage rl reached step 1"), (0, (4,), "stage rl reached step 4"), (7, (4,), "stage rl reached step 7")],
)
def test_a_run_with_a_step_or_a_checkpoint_is_never_overwritten(
    logged: int, saved: tuple[int, ...], reached: str, holds: Holds
) -> None:
    run = holds(logged=logged, saved=saved)
    for overrides in ((), ("check=true",)):
        rule, remedy = refusal(run, *overrides)
        assert "holds a run already" in rule and reached in rule and "resume=auto" in remedy


def test_checkpoints_without_a_configuration_are_never_overwritten(holds: Holds) -> None:
    run = holds(saved=(4,))
    for file in (run.config, run.stage("rl").checkpoints / "step_000004/config.yaml"):
        file.unlink()
    assert "holds a run already" in refusal(run)[0]
    (note,) = resume_notes(check(run, "resume=auto"))
    assert "is lost: it cannot be said which keys differ" in note


# --- what a resume says ---


def test_a_resume_that_finds_nothing_says_so(tmp_path: Path, holds: Holds) -> None:
    (note,) = resume_notes(check(RunDir(tmp_path / "none"), "resume=auto"))
    assert note == f"there is nothing to resume in {tmp_path}/none: a new run begins"
    (note,) = resume_notes(check(holds(), "resume=auto"))
    assert "there is no finished step" in note


def test_a_resume_lists_the_keys_that_differ(holds: Holds) -> None:
    run = holds("trainer.lr=3e-4", "steps=8", saved=(4,))
    checked = check(run, "resume=auto", "steps=12", "check=true", "name=other", "fault=rollout:kill@3")
    lr = checked.config.trainer.lr
    assert sorted(resume_notes(checked)) == ["steps was 8 and is now 12", f"trainer.lr was 0.0003 and is now {lr}"]
    page = describe(checked)
    assert f"  resume\n    steps was 8 and is now 12\n    trainer.lr was 0.0003 and is now {lr}" in page
    assert f"  resume     after step 4, from {run.stage('rl').checkpoints}/step_000004" in page
    assert not resume_notes(check(run, "resume=auto", "steps=8", "trainer.lr=3e-4"))


def test_what_differs_is_what_the_checkpoint_was_trained_with(holds: Holds) -> None:
    """A start that failed in between has replaced config.yaml, and a power cut may have emptied it."""
    run = holds("trainer.lr=3e-4", saved=(4,))
    for text in (yaml.safe_dump(check(run, "resume=auto", "trainer.lr=1e-4").raw), "", "{seed: ["):
        run.config.write_text(text)
        assert not resume_notes(check(run, "resume=auto", "trainer.lr=3e-4"))
        assert "trainer.lr was 0.0003 and is now 0.0001" in resume_notes(check(run, "resume=auto", "trainer.lr=1e-4"))
        assert "was started with 0" in refusal(run, "resume=auto", "seed=7")[0]


def test_many_differences_are_cut(holds: Holds) -> None:
    run = holds(saved=(4,))
    saved = run.stage("rl").checkpoints / "step_000004/config.yaml"
    before = yaml.safe_load(saved.read_text())
    saved.write_text(yaml.safe_dump(before | {"trainer": {}, "rollout": {}}))
    notes = resume_notes(check(run, "resume=auto"))
    assert len(notes) == 21 and "more keys differ" in notes[-1]


def test_a_damaged_checkpoint_is_shown_before_the_start(holds: Holds) -> None:
    run = holds(saved=(4, 8))
    (run.stage("rl").checkpoints / "step_000008/hf/model.safetensors").write_text("")
    page = describe(check(run, "resume=auto"))
    assert "  resume     after step 4, from" in page
    assert "  skipped    step_000008: hf/model.safetensors has 0 bytes instead of 9" in page


def test_a_start_prints_what_a_check_shows(
    holds: Holds, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = holds("trainer.lr=3e-4", saved=(4,))
    monkeypatch.setattr(sys, "argv", ["r1ray", f"run_dir={run.path}", "resume=auto", "trainer.lr=1e-4"])
    assert run_cli(lambda checked: print("started")) == 0
    assert capsys.readouterr().out == "r1ray: resume: trainer.lr was 0.0003 and is now 0.0001\nstarted\n"


# --- a directory that cannot or must not be used ---


def test_a_run_in_progress_is_refused(holds: Holds) -> None:
    run = holds(saved=(4,))
    lock = run.path / LOCK
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for resume in ("never", "auto"):
            assert "is in use by another run" in refusal(run, f"resume={resume}", "check=true")[0]
    assert check(run, "resume=auto")


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_directory_that_takes_no_files_is_one_mistake(
    error: int, holds: Holds, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = holds(saved=(4,))

    def refuse(folder: Path) -> os.stat_result:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(ownership, "new_folder_in", refuse)
    rule, remedy = refusal(run, "resume=auto")
    assert os.strerror(error) in rule and "run_dir=FOLDER" in remedy


@pytest.mark.parametrize(
    "where", [".", "stages", "stages/rl", "stages/rl/checkpoints", "stages/rl/checkpoints/step_000004"]
)
def test_a_directory_that_every_user_can_write_is_refused(where: str, holds: Holds) -> None:
    run = holds(saved=(4,))
    folder = run.path / where
    folder.chmod(0o1777)
    rule, remedy = refusal(run, "resume=auto")
    assert "every user can write" in rule and f"chmod -R o-w {run.path}" in remedy
    folder.chmod(0o2775)
    assert check(run, "resume=auto"), "its group may write: storage of a project"


def test_a_new_run_is_refused_where_its_resume_would_be(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    rule, remedy = refusal(RunDir(tmp_path))
    assert "every user can write" in rule and f"run_dir={tmp_path}/NAME" in remedy
    assert check(RunDir(tmp_path / "NAME"))


def ours(uid: int, mode: int) -> Callable[[Path], SimpleNamespace]:
    """What a new folder of this process looks like."""
    return lambda folder: SimpleNamespace(st_uid=uid, st_mode=mode)


def test_a_directory_of_another_user_is_refused(holds: Holds, monkeypatch: pytest.MonkeyPatch) -> None:
    run = holds(saved=(4,))
    uid = os.getuid()
    monkeypatch.setattr(ownership, "ROOT", -1)
    assert check(run, "resume=auto")
    monkeypatch.setattr(ownership, "new_folder_in", ours(uid + 1, 0o700))
    rule, remedy = refusal(run, "resume=auto")
    assert f"belongs to another user (uid {uid})" in rule and f"chown -R {uid + 1} {run.path}" in remedy
    monkeypatch.setattr(ownership, "ROOT", uid)
    assert check(run, "resume=auto"), "root can do everything anyway"


def test_a_mount_with_one_mode_for_all_files_is_accepted(holds: Holds, monkeypatch: pytest.MonkeyPatch) -> None:
    run = holds(saved=(4,))
    run.path.chmod(0o777)
    monkeypatch.setattr(ownership, "new_folder_in", ours(os.getuid(), 0o777))
    assert check(run, "resume=auto")


def test_nothing_is_left_in_the_directory_by_the_check(holds: Holds) -> None:
    run = holds(saved=(4,))
    before = sorted(run.path.rglob("*"))
    check(run, "resume=auto")
    assert sorted(run.path.rglob("*")) == before
