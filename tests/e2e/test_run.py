"""A run from the command line: two engines, two trainer ranks with ZeRO-3 over gloo, reference, reward pool."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
REPO = Path(__file__).parents[2]
SMALL = [
    "algo.prompts_per_step=8",
    "algo.group_size=4",
    "eval.sets.countdown.args.num_problems=16",
    "log.wandb=disabled",
]


def r1ray(*arguments: str, cwd: Path, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(REPO)}
    return subprocess.run(
        [sys.executable, "-m", "r1ray.main", *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "stages/rl/metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of four minibatches, evaluated before and after, checkpointed at steps 2 and 3."""
    cwd = tmp_path_factory.mktemp("e2e")
    done = r1ray(
        *("scale=smoke", "steps=3", "name=real", *SMALL, "algo.num_minibatches=4", "trainer.zero_stage=3"),
        *("checkpoint.every_steps=2", "algo.kl_coef=0.01", "algo.reference_refresh_updates=8"),
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "leaked" not in done.stderr
    return cwd / "runs" / "real"


def test_each_step_is_logged_once_with_first_step_invariants(run: Path) -> None:
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    first = rows[1]
    # Before the first update the policy equals the engine's and the reference's.
    assert first["first_update/ratio/max"] == pytest.approx(1, abs=1e-4)
    assert first["first_update/clip_fraction"] == 0
    assert abs(first["first_update/kl_ref"]) < 1e-6
    for row in rows[1:]:
        assert row["mismatch/logprob_gap/max"] < 1e-3 and row["sync/canary_gap"] < 1e-4
        assert row["updates_skipped"] == 0 and row["staleness/max"] == 0
    assert [row["update"] for row in rows[1:]] == [4, 8, 12]
    assert rows[3]["kl_ref"] >= 0 and rows[2]["first_update/kl_ref"] > 0


def test_reference_was_replaced_by_the_policy(run: Path) -> None:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [e["updates"] for e in events if e["kind"] == "reference_replaced"] == [8]
    assert abs(rows_of(run)[3]["first_update/kl_ref"]) < 1e-6


def test_run_directory_has_its_files(run: Path) -> None:
    for name in ("config.yaml", "overrides.txt", "versions.json", "events.jsonl", "report.html"):
        assert (run / name).stat().st_size > 0
    logs = {path.name for path in (run / "logs").iterdir()}
    roles = {"rollout": 2, "policy": 2, "reference": 1, "reward": 2}
    assert logs >= {f"{role}-{index}.log" for role, count in roles.items() for index in range(count)}
    completion = json.loads((run / "stages/rl/rollouts/step_000001.jsonl").read_text().splitlines()[0])
    assert "<think>" in completion["completion"] and "<think>" in completion["prompt"]


def test_checkpoint_loads_in_transformers_as_the_policy(run: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hf = run / "stages/rl/checkpoints/latest/hf"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(hf), AutoTokenizer.from_pretrained(hf)
    base = AutoModelForCausalLM.from_pretrained(REPO / "r1ray" / "builtin", dtype=torch.float32)
    moved = [float((a - b).abs().max()) for a, b in zip(model.parameters(), base.parameters(), strict=True)]
    assert min(moved) > 0, "a weight was not trained or not saved"
    assert tokenizer.chat_template and model.generation_config.temperature == 0.6
    assert model.generation_config.top_p == 0.95 and model.generation_config.eos_token_id is not None


def test_run_resumes_from_its_checkpoint(run: Path) -> None:
    before = rows_of(run)
    done = r1ray(
        *(
            "scale=smoke",
            "steps=4",
            "name=real",
            *SMALL,
            "algo.num_minibatches=4",
            "trainer.zero_stage=3",
            "resume=auto",
        ),
        *("checkpoint.every_steps=2", "algo.kl_coef=0.01", "algo.reference_refresh_updates=8"),
        cwd=run.parents[1],
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4] and rows[:4] == before
    assert rows[4]["update"] == 16 and rows[4]["first_update/ratio/max"] == pytest.approx(1, abs=1e-4)


def test_reward_by_import_path_trains_while_accuracy_is_only_logged(tmp_path: Path) -> None:
    done = r1ray(
        *("scale=smoke", "steps=1", "name=control", *SMALL, "eval.before_training=false", "checkpoint.every_steps=0"),
        "reward.components.coin={name: 'tests.fixtures.coin_flip:coin_flip'}",
        *("reward.components.accuracy.weight=0", "reward.components.format.weight=0", "algo.kl_coef=0"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (row,) = rows_of(tmp_path / "runs" / "control")
    assert row["reward/mean"] == pytest.approx(row["reward/coin/mean"]) and 0 < row["reward/coin/mean"] < 1
    assert "reward/accuracy/mean" in row and "solve_rate" in row and "kl_ref" not in row
    logs = {path.name for path in (tmp_path / "runs/control/logs").iterdir()}
    assert not any(name.startswith("reference") for name in logs), "without KL there is no reference"


def test_placement_that_cannot_fit_is_reported_without_a_traceback(tmp_path: Path) -> None:
    done = r1ray(
        "scale=smoke", "name=big", "trainer.num_workers=99", "cluster.placement_timeout_s=3", *SMALL, cwd=tmp_path
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "policy: 99 x 0.1 CPU" in done.stderr and "This fits: trainer.num_workers=" in done.stderr


def test_a_finished_run_is_evaluated_by_its_directory(run: Path) -> None:
    """Without checkpoint.best_metric=null; the last lines are a table of the sets, and the phases of the start are named."""
    done = r1ray(
        "stages=eval",
        "name=evaluation",
        f"model.path={run}",
        *SMALL,
        "eval.num_samples=2",
        "eval.pass_at=[1,2]",
        "rollout.num_workers=1",
        cwd=run.parents[1],
    )
    assert done.returncode == 0, done.stderr + done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    table = next(index for index, words in enumerate(lines) if words[:2] == ["set", "n"])
    header, values = lines[table], lines[table + 1]
    assert values[:3] == ["countdown", "16", "0"] and header[-3:] == ["maj@2", "tokens", "truncated"]
    for phase in (
        "starting Ray took",
        "loading data took",
        "1 engine ready after",
        "evaluating countdown: 16 problems x 2",
    ):
        assert f"{phase} " in done.stdout
    folder = run.parent / "evaluation" / "stages/eval/eval/countdown"
    assert len((folder / "step_000000.jsonl").read_text().splitlines()) == 32
    assert "best/hf" in (run.parent / "evaluation/events.jsonl").read_text(), "the run's best model"
