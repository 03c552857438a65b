"""Alarms about a level: a run without a signal or with cut completions raises one, an ordinary run none."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.run.audit import findings
from r1ray.run.directory import RunDir
from r1ray.run.levels import STEPS, LevelAlarm, LevelState, check_levels
from r1ray.run.log import RunLog
from r1ray.run.loggers import JsonlLogger
from r1ray.run.summary import closing_summary

FINE = {
    **{"groups/generated": 8.0, "reward/mean": 0.4, "reward/std": 0.3, "solve_rate": 0.4, "truncated/fraction": 0.1},
    "train/zero_advantage/fraction": 0.5,
}
DEAD = FINE | {"reward/mean": 0.0, "reward/std": 0.0, "solve_rate": 0.0, "train/zero_advantage/fraction": 1.0}
CUT = FINE | {"truncated/fraction": 0.5}


def alarms_of(steps: Sequence[dict[str, float]]) -> list[tuple[int, LevelAlarm]]:
    state, found = LevelState(), []
    for step, metrics in enumerate(steps, start=1):
        state, alarms = check_levels(state, metrics)
        found += [(step, alarm) for alarm in alarms]
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([FINE] * 50, []),
        ([DEAD] * (STEPS - 1) + [FINE] + [DEAD] * (STEPS - 1), []),
        ([DEAD] * 40, [(5, "no_signal", False)]),
        ([DEAD] * 5 + [{"eval/a/accuracy": 0.1}] * 9 + [FINE] * 9, [(5, "no_signal", False), (19, "no_signal", True)]),
        # The critic gives advantages although all rewards are equal; groups are equal although their rewards differ.
        ([DEAD | {"train/zero_advantage/fraction": 0.0}] * 5, [(5, "no_signal", False)]),
        ([DEAD | {"reward/std": 0.2}] * 5, [(5, "no_signal", False)]),
        ([FINE] * 3 + [CUT] * 6 + [FINE] * 9, [(8, "truncated", False), (14, "truncated", True)]),
        ([DEAD | CUT | DEAD | {"truncated/fraction": 0.5}] * 5, [(5, "no_signal", False), (5, "truncated", False)]),
    ],
)  # fmt: skip
def test_an_alarm_begins_and_ends_after_a_few_steps(steps: list[dict], expected: list) -> None:
    assert [(step, alarm.name, alarm.over) for step, alarm in alarms_of(steps)] == expected


def test_the_remedy_follows_from_what_the_step_shows() -> None:
    def remedy(**changes: float) -> str:
        [(_, alarm), *_] = alarms_of(
            [DEAD | {name.replace("_fraction", "/fraction"): v for name, v in changes.items()}] * 5
        )
        return alarm.text

    assert "all rewards are 0, so every advantage is 0 (solve rate 0). Remedy: compare the prompts" in remedy()
    assert "raise rollout.max_response_length" in remedy(truncated_fraction=0.5)
    assert "Remedy: use harder problems" in remedy(solve_rate=1.0)


def test_a_run_without_a_signal_is_reported_while_it_runs_and_at_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the console with the remedy, in events.jsonl, in the closing summary and in the audit; once, also over a resume."""
    off = SimpleNamespace(wandb="disabled", tensorboard=False, report_every_steps=0, rollouts_every_steps=0)
    run, cfg = RunDir(tmp_path), SimpleNamespace(log=off)
    for first in (1, 7):
        log = RunLog(run, stage="rl", cfg=cfg, first_step=first, last_step=12, decode=str)  # type: ignore[arg-type]
        for step in range(first, first + 6):
            log.step(step, CUT | DEAD)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("r1ray:")]
    assert len(lines) == 1 and lines[0].startswith("r1ray: step 5: there is nothing to learn from: all rewards are 0")
    (event,) = map(json.loads, run.events.read_text().splitlines())
    assert (event["kind"], event["name"], event["step"]) == ("alarm", "no_signal", 5)
    assert "  alarm    no_signal since step 5\n" in closing_summary(run)
    run.event("alarm_over", name="no_signal", step=12)
    assert "alarm" not in closing_summary(run)
    JsonlLogger(run.stage("other").metrics, first_step=1)
    rows: list[Any] = [{"step": step, **DEAD} for step in range(1, 4)]
    assert [found.what[:43] for found in findings(rows, [])] == ["In the last 3 steps there is nothing to lea"]
    assert findings([*rows, {"step": 4, **FINE}], []) == []
