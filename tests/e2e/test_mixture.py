"""One run on five sources, each with its own verifier and rewards, programs in the sandbox."""

import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import pytest

from r1ray.data.rollouts import read_rollouts, rollout_steps

pytestmark = pytest.mark.integration
REPO = Path(__file__).parents[2]
SOURCES = ["boxed", "choice", "countdown", "logic", "program"]
LEARN = ["steps=60", "algo.num_minibatches=4", "trainer.lr=3e-4"]
WINDOW = 5
"""Number of steps at the start and at the end that are averaged: about 50 groups of the rarer sources, 75 of the others."""
SURE = 3.0
"""Standard errors by which a reward has to increase. The eight completions of a problem are correlated and problems are
independent, so the error is computed over groups, from the groups themselves. A constant reward passes once in 700 runs."""


def trained(cwd: Path, *overrides: str) -> Path:
    """The run directory of a whole run on the mixture."""
    command = [sys.executable, "-m", "r1ray.main", "name=mixture", "data=mixture", "reward=mixture"]
    more = ["eval.before_training=false", "eval.every_steps=0", "log.rollouts_every_steps=1", "log.wandb=disabled"]
    env = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run([*command, *more, *overrides], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return cwd / "runs/mixture"


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "stages/rl/metrics.jsonl").read_text().splitlines()]


def completions_of(run: Path) -> dict[int, list[dict[str, Any]]]:
    return {step: read_rollouts(path) for step, path in rollout_steps(run / "stages/rl/rollouts").items()}


def test_every_source_is_scored_by_its_own_rewards(tmp_path: Path) -> None:
    small = ["algo.prompts_per_step=40", "steps=2", "eval.sets.countdown.args.num_problems=16"]
    run = trained(tmp_path, "scale=smoke", "checkpoint.every_steps=0", *small)
    (sandbox,) = [e for line in (run / "events.jsonl").open() if (e := json.loads(line))["kind"] == "sandbox"]
    assert sandbox["tier"] in ("T1", "T1-noproc", "T2")
    rows, steps = rows_of(run), completions_of(run)
    for row, completions in zip(rows, steps.values(), strict=True):
        assert row["unusable/fraction"] == row["status/sandbox_error"] == 0
        by_source = {source: [line for line in completions if line["source"] == source] for source in SOURCES}
        for source, theirs in by_source.items():
            if theirs:  # it was sampled in this step
                assert row[f"source/{source}/groups"] == len(theirs) / 4
                assert row[f"source/{source}/reward/mean"] == pytest.approx(fmean(line["reward"] for line in theirs))
                assert row[f"source/{source}/solve_rate"] == pytest.approx(fmean(line["correct"] for line in theirs))
    lines = [line for completions in steps.values() for line in completions]
    assert len(lines) == 2 * 40 * 4
    for source in SOURCES:
        theirs = [line for line in lines if line["source"] == source]
        assert {line["correct"] for line in theirs} == {True, False} and fmean(line["reward"] for line in theirs) > 0
        applies = {part for line in theirs for part, value in line["components"].items() if value is not None}
        own = {"program": {"code_fraction"}, "logic": {"logic_rl"}}.get(source, set())
        assert applies == {"accuracy", "format"} | own


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_reward_of_every_source_increases(tmp_path: Path) -> None:
    run = trained(tmp_path, *LEARN)
    assert [row["step"] for row in rows_of(run)] == list(range(1, 61))
    steps = list(completions_of(run).values())
    first, last = group_rewards(steps[:WINDOW]), group_rewards(steps[-WINDOW:])
    print(*(f"{source}: {fmean(first[source]):.3f} -> {fmean(last[source]):.3f}" for source in SOURCES), sep="\n")
    for source in SOURCES:
        before, after = first[source], last[source]
        error = math.sqrt(variance(before) / len(before) + variance(after) / len(after))
        assert fmean(before) > 0
        assert fmean(after) - fmean(before) > SURE * error, (source, fmean(before), fmean(after), error)


def group_rewards(steps: list[list[dict[str, Any]]]) -> dict[str, list[float]]:
    """{source: mean reward of each of its groups}."""
    groups: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    for index, lines in enumerate(steps):
        for line in lines:
            groups[index, line["source"], line["problem"]].append(line["reward"])
    found = defaultdict(list)
    for (_, source, _), rewards in groups.items():
        found[source].append(fmean(rewards))
    return found
