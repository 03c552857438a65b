"""Loggers: each step is logged once, also after a resume, and no logger ever stops a run."""

import errno
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_metrics import CORRECT, INCORRECT, completion, group

from r1ray.cli import compose
from r1ray.config import Config
from r1ray.data.rollouts import problem_of, read_rollouts
from r1ray.run.directory import RunDir
from r1ray.run.log import RunLog, write_rollouts
from r1ray.run.loggers import Guard, JsonlLogger, WandbLogger, read_metrics


@pytest.fixture(scope="module")
def cfg() -> Config:
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(compose(["log.wandb=disabled", "log.rollouts_every_steps=10"]), resolve=True)
    return Config.model_validate(values)


def log_of(run: RunDir, cfg: Config, *, first_step: int = 0, last_step: int = 25) -> RunLog:
    return RunLog(
        run, stage="rl", cfg=cfg, first_step=first_step, last_step=last_step, decode=lambda ids: f"prompt of {len(ids)}"
    )


def steps_of(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_step_is_logged_once_also_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonlLogger(path, first_step=0)
    for step in range(6):
        first.step(step, {"loss": float(step)})
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    resumed = JsonlLogger(path, first_step=4)
    assert steps_of(path) == [0, 1, 2, 3]
    for step in (4, 5, 6):
        resumed.step(step, {"loss": -1.0})
    assert steps_of(path) == [0, 1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in read_metrics(path)] == [0, 1, 2, 3, -1, -1, -1]


def test_completions_of_every_evaluation_are_kept(tmp_path: Path, cfg: Config) -> None:
    log = log_of(RunDir(tmp_path), cfg)
    for step in (0, 3):
        log.evaluation("mine", step, [group(CORRECT, INCORRECT)])
    folder = tmp_path / "stages/rl/eval/mine"
    assert sorted(path.name for path in folder.iterdir()) == ["step_000000.jsonl", "step_000003.jsonl"]
    lines = read_rollouts(folder / "step_000003.jsonl")
    assert [line["correct"] for line in lines] == [True, False] and all("completion" in line for line in lines)


def test_a_step_whose_evaluation_is_finished_on_resume_keeps_its_rollouts(tmp_path: Path, cfg: Config) -> None:
    run = RunDir(tmp_path)
    first = log_of(run, cfg)
    for step in (10, 20):
        first.rollouts(step, [group(CORRECT, INCORRECT)])
        first.step(step, {"solve_rate": 0.5})
    RunLog(run, stage="rl", cfg=cfg, first_step=10, last_step=25, trained=10, decode=str)
    assert steps_of(run.stage("rl").metrics) == []
    assert [path.name for path in run.stage("rl").rollouts.iterdir()] == ["step_000010.jsonl"]


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    log = JsonlLogger(tmp_path / "metrics.jsonl", first_step=0)
    log.step(1, {"a": math.nan, "b": math.inf, "c": 1.0})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "a": None, "b": None, "c": 1.0}


def test_rows_that_a_full_disk_refused_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    log = JsonlLogger(path, first_step=0)
    log.step(1, {"a": 1.0})
    opened = Path.open

    def full(self: Path, mode: str = "r", *args, **kwargs):
        file = opened(self, mode, *args, **kwargs)
        if mode == "a":
            file.write('{"step"')  # part of the line still fits
            file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space"):
            log.step(2, {"a": 2.0})
    log.step(3, {"a": 3.0})
    assert steps_of(path) == [1, 2, 3]


def test_a_failing_logger_is_reported_once_and_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(step: int) -> None:
        raise RuntimeError(f"no network at step {step}")

    guard = Guard("wandb")
    assert [guard(fail, step) for step in (1, 2, 3)] == [None, None, None]
    assert guard(abs, -2) == 2
    said = capsys.readouterr().err
    assert said.count("wandb failed (RuntimeError: no network at step 1); the run continues") == 1


def test_a_run_continues_without_wandb(
    tmp_path: Path, cfg: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it could not be imported
    online = cfg.model_copy(update={"log": cfg.log.model_copy(update={"wandb": "online"})})
    log = log_of(RunDir(tmp_path), online)
    log.step(1, {"solve_rate": 0.5})
    log.close()
    assert steps_of(tmp_path / "stages/rl/metrics.jsonl") == [1]
    assert "wandb failed" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "mode"), [(None, "offline"), ("secret", "online")])
def test_wandb_is_offline_without_a_key_and_the_same_run_after_a_resume(
    key: str | None, mode: str, tmp_path: Path, cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict] = []
    axes: list[dict] = []
    run = SimpleNamespace(define_metric=lambda name, **kwargs: axes.append({"name": name, **kwargs}))
    fake = SimpleNamespace(init=lambda **kwargs: started.append(kwargs) or run, Settings=lambda **kwargs: kwargs)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    auto = cfg.log.model_copy(update={"wandb": "auto"})
    for _ in range(2):
        WandbLogger(auto, folder=tmp_path, name="r1_zero/rl", config={})
    assert [start["mode"] for start in started] == [mode, mode]
    assert started[0]["id"] == started[1]["id"]
    assert started[0]["resume"] == "allow"
    assert axes[0] == {"name": "*", "step_metric": "step"}, "the step counter of wandb would drop repeated steps"


def test_a_stage_writes_metrics_rollouts_events_and_report(tmp_path: Path, cfg: Config) -> None:
    run = RunDir(tmp_path)
    log = log_of(run, cfg)
    groups = [group(CORRECT, INCORRECT, name="p1"), group(INCORRECT, INCORRECT, name="p2")]
    for step in range(1, 26):
        log.rollouts(step, groups)
        log.step(step, {"solve_rate": step / 25, "time/step": 1.0})
    log.event("alarm", what="gap")
    log.close()
    assert steps_of(run.stage("rl").metrics) == list(range(1, 26))
    files = sorted(path.name for path in run.stage("rl").rollouts.iterdir())
    assert files == ["step_000001.jsonl", "step_000010.jsonl", "step_000020.jsonl", "step_000025.jsonl"]
    assert json.loads(run.events.read_text())["kind"] == "alarm"
    assert "<svg" in run.report.read_text()


def test_a_jump_is_logged_once_also_when_the_run_resumes_in_between(
    tmp_path: Path, cfg: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path)

    def steps(first: int, last: int, share: float) -> list[str]:
        log = log_of(run, cfg, first_step=first)
        for step in range(first, last + 1):
            log.step(step, {"zero_reward/fraction": share, "groups/generated": 64.0})
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("r1ray")]

    assert steps(1, 10, 0.25) == []
    assert steps(11, 11, 0.75) == ["r1ray: step 11: zero_reward/fraction jumped from 0.250 to 0.750"]
    assert steps(12, 14, 0.75) == []
    assert steps(15, 18, 0.25) == ["r1ray: step 17: zero_reward/fraction is back to 0.250 (normal: 0.250)"]
    events = [
        {name: event[name] for name in ("kind", "name", "step", "normal", "now")} for event in run.read_events("alarm")
    ]
    assert events == [{"kind": "alarm", "name": "zero_reward/fraction", "step": 11, "normal": 0.25, "now": 0.75}]
    assert len(run.read_events("alarm_over")) == 1


def test_a_resume_removes_rollouts_of_later_steps(tmp_path: Path, cfg: Config) -> None:
    run = RunDir(tmp_path)
    log = log_of(run, cfg)
    for step in range(1, 21):
        log.rollouts(step, [group(CORRECT, INCORRECT)])
    log_of(run, cfg, first_step=16).close()
    assert sorted(path.name for path in run.stage("rl").rollouts.iterdir()) == [
        "step_000001.jsonl",
        "step_000010.jsonl",
    ]


def test_fields_of_a_rollout_line(tmp_path: Path) -> None:
    completions = (
        completion(length=3, text="<think> é </think>", version=7),
        completion(length=5, finish_reason="length", version=8),
    )
    path = write_rollouts(
        tmp_path, [group(CORRECT, INCORRECT, completions=completions)], step=4, decode=lambda ids: "the prompt"
    )
    first, second = read_rollouts(path)
    record = json.loads(path.read_text().split("\n")[0])["asked"]
    assert problem_of(first | {"asked": record}).payload == record["payload"] == group(CORRECT).problem.payload
    assert "asked" not in second
    assert path.name == "step_000004.jsonl"
    assert first == {
        "problem": "p",
        "source": "s",
        "index": 0,
        "prompt": "the prompt",
        "completion": "<think> é </think>",
        "length": 3,
        "finish_reason": "stop",
        "reward": 1.0,
        "correct": True,
        "usable": True,
        "components": {"accuracy": 1.0, "format": 1.0},
        "statuses": {"accuracy": "ok", "format": "ok"},
        "version": 7,
        "answer": None,
        "gold": None,
    }
    assert (second["finish_reason"], second["statuses"]["accuracy"], second["version"]) == ("length", "wrong_answer", 8)


def test_a_rollout_line_holds_answer_gold_and_unusual_line_breaks(
    tmp_path: Path,
) -> None:
    text = "a\u2028b\x85c\x1d <answer> 42 </answer>"
    answered = group(
        CORRECT, INCORRECT, completions=(completion(text=text), completion(text=f"<answer>{'7' * 300}</answer>"))
    )
    answered = replace(answered, problem=replace(answered.problem, payload={"answers": ["42", "42.0"]}))
    first, second = read_rollouts(write_rollouts(tmp_path, [answered], step=4, decode=lambda ids: ""))
    assert (first["completion"], first["answer"], first["gold"]) == (text, "42", "42")
    assert second["answer"].startswith("7" * 200 + " #") and len(second["answer"]) == 214


def test_wandb_and_tensorboard_show_a_few_completions(
    tmp_path: Path, cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rollouts every n steps and of every evaluation, one for each of a few problems, short and without control characters."""
    logged: list[tuple[str, Any]] = []
    run = SimpleNamespace(define_metric=lambda *_, **__: None, log=lambda values: logged.extend(values.items()))
    table = lambda columns, data: [dict(zip(columns, row, strict=True)) for row in data]  # noqa: E731
    fake = SimpleNamespace(init=lambda **_: run, Settings=lambda **_: None, Table=table)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    texts: dict[tuple[str, int], str] = {}
    writer = SimpleNamespace(add_text=lambda name, text, step: texts.update({(name, step): text}), flush=lambda: None)
    tensorboard = SimpleNamespace(SummaryWriter=lambda *_, **__: writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    both = cfg.model_copy(update={"log": cfg.log.model_copy(update={"wandb": "offline", "tensorboard": True})})
    log = log_of(RunDir(tmp_path), both)
    hostile = completion(text="# title\n<b>\x1b[2K" + "x" * 5000)
    groups = [group(CORRECT, INCORRECT, completions=(hostile, completion()), name=f"p{i}") for i in range(9)]
    for step in (1, 2, 10):
        log.rollouts(step, groups)
    log.evaluation("held", 10, groups)
    tables = [(name, value) for name, value in logged if name.startswith("samples/")]
    assert [name for name, _ in tables] == ["samples/rollouts", "samples/rollouts", "samples/eval/held"]
    assert [len(rows) for _, rows in tables] == [4, 4, 4]
    row = tables[0][1][0]
    assert (row["step"], row["reward"], row["correct"], row["prompt"]) == (1, 1.0, True, "prompt of 3")
    assert len(row["completion"]) < 2100 and "\x1b" not in row["completion"]
    assert set(texts) == {
        (f"samples/{n}/{i}", s) for n, s in (("rollouts", 1), ("rollouts", 10), ("eval/held", 10)) for i in range(4)
    }
    shown = texts["samples/eval/held/0", 10].split("\n")
    assert shown[0].startswith("reward 1.0, correct True") and all(line.startswith("    ") for line in shown[2:])
