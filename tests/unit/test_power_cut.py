"""After a power cut a run resumes from its newest sealed checkpoint, with every file that the resume reads."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from power_cut import Disk, PowerCut

from r1ray.run import directory
from r1ray.run.checkpoint import Progress
from r1ray.run.directory import RunDir, open_run
from r1ray.run.files import drop_torn_end, read_jsonl
from r1ray.run.ledger import Ledger, read_ledger
from r1ray.run.log import RunLog
from r1ray.run.loggers import read_metrics
from r1ray.stages.context import StageContext
from r1ray.stages.rl import replace_reference

RAW = {"seed": 3, "trainer": {"lr": 0.1}}
STEPS = 4


class Folders:
    """A trainer group, and a reference group, that only write and read folders; nothing is synced."""

    def save(self, path: str) -> None:
        (Path(path) / "deepspeed/zero").mkdir(parents=True, exist_ok=True)
        (Path(path) / "deepspeed/zero/optimizer.pt").write_bytes(b"moments" * 99)

    def export_hf(self, path: str) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "model.safetensors").write_bytes(b"weights" * 99)

    def load(self, path: str) -> None:
        assert (Path(path) / "model.safetensors").read_bytes() == b"weights" * 99


def context_in(folder: Path) -> StageContext:
    log = SimpleNamespace(wandb="disabled", tensorboard=False, report_every_steps=0, rollouts_every_steps=0)
    checkpoint = SimpleNamespace(keep=2, best_metric="solve_rate")
    cfg: Any = SimpleNamespace(checkpoint=checkpoint, log=log, resume="auto", steps=STEPS, stages={}, name="a")
    return StageContext(name="rl", cfg=cfg, run=RunDir(folder), model_path="base")


def train(folder: Path, *, last: int = STEPS) -> list[int]:
    """What a run writes, without training; returns the steps whose checkpoint was sealed."""
    run = open_run(folder, raw=RAW, overrides=["trainer.lr=0.1"])
    context, group, sealed = context_in(folder), Folders(), []
    checkpoints = context.checkpoints()
    found = context.resume_checkpoint(checkpoints)
    done = found.progress.step if found else 0
    if found and found.progress.reference_updates:
        group.load(context.reference_path(found.progress))
    ledger = Ledger(run.stage("rl").ledger, step=done)
    log = RunLog(run, stage="rl", cfg=context.cfg, first_step=done + (done > 0), last_step=STEPS, decode=str)
    for step in range(done + 1, last + 1):
        ledger.write("dispatched", step=step, draw=step)
        if step % 2 == 0:
            replace_reference(context, group, group, step)  # type: ignore[arg-type]
        log.step(step, {"solve_rate": step / 10})
        ledger.sync()
        progress = Progress(step=step, updates=step, version=step, reference_updates=step // 2 * 2)
        context.save(checkpoints, {"policy": group}, progress, {"solve_rate": step / 10})  # type: ignore[dict-item]
        context.remove_unused_references(checkpoints, first="base")
        sealed.append(step)
    return sealed


def test_power_fails_before_any_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the last sync was: the newest sealed checkpoint is found, and with it every line and the reference it needs."""
    monkeypatch.setattr(directory, "versions", lambda: {"python": "3"})  # takes most of the time
    for syncs in range(1, 400):
        folder = tmp_path / str(syncs)
        folder.mkdir()
        with monkeypatch.context() as patch:
            disk = Disk(folder, patch, syncs=syncs)
            try:
                train(folder / "run", last=3)
                ended = True
            except PowerCut:
                ended = False
            disk.cut()
            patch.setattr(os, "fsync", lambda descriptor: None)
            check_what_is_left(folder / "run")
            train(folder / "run", last=3)
        run = RunDir(folder / "run")
        assert [row["step"] for row in read_metrics(run.stage("rl").metrics)] == [1, 2, 3]
        assert not run.read_events("metrics_lost"), syncs
        if ended:
            return
    raise AssertionError("the run never ended")


def check_what_is_left(folder: Path) -> None:
    run = RunDir(folder)
    found = context_in(folder).checkpoints().newest_valid()
    if found is None:
        return
    steps = set(range(1, found.progress.step + 1))
    assert yaml.safe_load(run.config.read_text()) == RAW
    assert (found.path / "config.yaml").read_text() == run.config.read_text()
    assert json.loads((run.path / "versions.json").read_text())
    assert {row["step"] for row in read_metrics(run.stage("rl").metrics)} >= steps
    assert {row["step"] for row in read_ledger(run.stage("rl").ledger)} >= steps
    assert run.read_events("run_started")


def test_everything_is_on_the_disk_after_a_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch)
    assert train(tmp_path / "run") == [1, 2, 3, 4]
    lost = {path.name for path in disk.cut()}
    assert lost <= {"events.jsonl", ".lock", "logs"}, (
        "only the event after the last seal, and names that no resume reads"
    )
    found = context_in(tmp_path / "run").checkpoints().newest_valid()
    assert found and found.progress.step == 4


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 3, "loss', b"\x00" * 50, b'{"step": 3}', '{"a": "\u00e4'.encode()[:-1], b"7\n", b'\x00\x00\n{"st'],
    ids=["cut", "zeros", "no end of line", "within a character", "no object", "two"],
)
def test_an_unfinished_last_line_is_dropped_and_reported(
    torn: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = b'{"step": 1, "kind": "a"}\n{"step": 2, "kind": "b"}\n'
    run = RunDir(tmp_path)
    files = [run.events, run.stage("rl").metrics, run.stage("rl").ledger]
    run.stage("rl").path.mkdir(parents=True)
    for file in files:
        file.write_bytes(whole + torn)
        assert [row["step"] for row in read_jsonl(file)][:2] == [1, 2]
    open_run(tmp_path, raw=RAW, overrides=[])
    assert all(file.read_bytes().startswith(whole) for file in files)
    assert [file.read_bytes() for file in files[1:]] == [whole] * 2
    assert {event["file"] for event in run.read_events("torn_line_dropped")} == set(map(str, files))
    assert run.read_events("b") and run.read_events("run_started"), "no line was appended to the torn one"
    out = capsys.readouterr().out
    assert all(f"the last line of {file} was unfinished and is dropped ({len(torn)} bytes)" in out for file in files)


@pytest.mark.parametrize(("content", "dropped"), [(b"", 0), (b"\x00\x00", 2), (b"{}\n", 0), (b'{"a": 1', 7)])
def test_a_file_without_whole_lines(content: bytes, dropped: int, tmp_path: Path) -> None:
    assert drop_torn_end(tmp_path / "missing") == 0
    (tmp_path / "a").write_bytes(content)
    assert drop_torn_end(tmp_path / "a") == dropped
    assert (tmp_path / "a").stat().st_size == len(content) - dropped


def test_steps_that_no_file_has_are_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path)
    RunDir(tmp_path).stage("rl").metrics.write_text("")
    capsys.readouterr()
    train(tmp_path)
    assert "metrics.jsonl lacks 4 of the steps 1 to 4, which cannot be rebuilt" in capsys.readouterr().out
    (event,) = RunDir(tmp_path).read_events("metrics_lost")
    assert event["steps"] == [1, 2, 3, 4]


@pytest.mark.parametrize("harm", ["emptied", "gone", "without its manifest"])
def test_a_checkpoint_whose_reference_is_lost_is_skipped(harm: str, tmp_path: Path) -> None:
    train(tmp_path)
    context = context_in(tmp_path)
    model = context.reference_folder(4) / "model.safetensors"
    if harm == "emptied":
        model.write_bytes(b"")
    else:
        (model if harm == "gone" else model.with_name("manifest.json")).unlink()
    found = context.checkpoints().newest_valid()
    assert found and (found.progress.step, found.progress.reference_updates) == (3, 2)
    (skipped,) = context.run.read_events("checkpoint_skipped")
    assert "its reference in" in skipped["reason"]


def test_an_unfinished_reference_is_removed(tmp_path: Path) -> None:
    train(tmp_path)
    context = context_in(tmp_path)
    left = context.reference_folder(6).with_name(".writing-updates_000006")
    left.mkdir()
    context.remove_unused_references(context.checkpoints(), first="base")
    assert not left.exists() and context.reference_folder(4).exists()
