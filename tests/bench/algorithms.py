"""Compare the algorithms: same model, problems, samples per step, learning rate and reward; three seeds, sixty steps.

    python -m tests.bench.algorithms                # runs what algorithms.jsonl does not have yet
    python -m tests.bench.algorithms --table        # prints the table of what it has
    python -m tests.bench.algorithms --only gpg ppo --seeds 0

Each algorithm uses its option file. Everything else (group size, problems, minibatches, learning rates) is the same for all:
Countdown with three numbers on the built-in model, completions of at most 128 tokens.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from shared_engines import engines, train

from tests.bench.side_by_side import machine, pin

TABLE = Path(__file__).with_suffix(".jsonl")
STEPS = 60
SEEDS = (0, 1, 2)
ENDS = 5
"""Number of steps at the start and at the end whose mean is reported."""
COMMON = (
    *(f"steps={STEPS}", "algo.group_size=8", "algo.prompts_per_step=16", "algo.num_minibatches=2"),
    *(
        "cluster.threads_per_worker=1",
        "rollout.num_workers=1",
        "rollout.max_response_length=128",
        "reward.num_workers=1",
    ),
    *("trainer.num_workers=1", "trainer.lr=1e-4", "critic.lr=1e-3", "prm.lr=1e-3"),
    *("eval.every_steps=0", "eval.before_training=true", "eval.num_samples=2", "eval.pass_at=[1]"),
    *("checkpoint.every_steps=0", "checkpoint.best_metric=null", "log.wandb=disabled", "log.report_every_steps=0"),
)
SHORT = ("algo.args.policy_frozen_steps=5", "algo.args.critic_updates=2")
"""Scaled to 60 steps of two updates."""
ALGORITHMS: Mapping[str, Sequence[str]] = {
    "grpo": ("algo=grpo",),
    "dr_grpo": ("algo=dr_grpo",),
    "dapo": ("algo=dapo",),
    "rloo": ("algo=rloo",),
    "reinforce_pp": ("algo=reinforce_pp",),
    "gpg": ("algo=gpg",),
    "ppo": ("algo=ppo",),
    "vapo": ("algo=vapo", *SHORT, "algo.args.alpha=1.0"),
    "vapo, alpha 0.05": ("algo=vapo", *SHORT),
    "prime": ("algo=prime",),
}
"""{row: algorithm, and the arguments of it that are scaled to this size}."""
EVALUATED = "eval/countdown/accuracy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the table of measured rows and exit")
    parser.add_argument("--only", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    args = parser.parse_args()
    if not args.table:
        measure([(name, seed) for seed in args.seeds for name in args.only])
    print(table(rows()))


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TABLE.read_text().splitlines()] if TABLE.exists() else []


def measure(wanted: Sequence[tuple[str, int]]) -> None:
    done = {(row["algorithm"], row["seed"]) for row in rows()}
    left = [pair for pair in wanted if pair not in done]
    if not left:
        return
    cores = pin(2)
    with tempfile.TemporaryDirectory() as folder, engines(COMMON, Path(folder) / "engines") as shared:
        for name, seed in left:
            start = time.monotonic()
            overrides = [f"seed={seed}", *COMMON, *ALGORITHMS[name]]
            steps = train(shared, overrides, Path(folder) / f"run_{len(rows())}")
            row = {"algorithm": name, "seed": seed, **summary(steps), "wall_s": time.monotonic() - start}
            with TABLE.open("a") as file:
                file.write(json.dumps({**row, "cores": len(cores), **machine()}) + "\n")
            print(
                {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )


def summary(steps: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Summary of a run's metrics; means over the first and the last few training steps."""
    before, *trained = steps
    first, last = trained[:ENDS], trained[-ENDS:]
    seen: dict[str, Any] = {
        "steps": len(trained),
        "samples": sum(step["groups/generated"] for step in trained) * 8,
        "step_s": statistics.median(step["time/step"] for step in trained),
        "eval": [before[EVALUATED], trained[-1][EVALUATED]],
        "eval_stderr": trained[-1]["eval/countdown/stderr"],
    }
    for name, key in (("solve_rate", "solve_rate"), ("length", "response_length/mean")):
        seen[name] = [statistics.fmean(step[key] for step in part) for part in (first, last)]
    return seen


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: means over the seeds, with the lowest and the highest final solve rate."""
    lines = [
        "| algorithm | seeds | solve rate, first -> last 5 steps (last: lowest .. highest) | held-out accuracy, before -> after | "
        "tokens per response | samples | seconds per step (median) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ALGORITHMS:
        mine = [row for row in found if row["algorithm"] == name]
        if not mine:
            continue

        def mean(value: Callable[[Mapping[str, Any]], float], mine: Sequence[Mapping[str, Any]] = mine) -> float:
            return statistics.fmean(value(row) for row in mine)

        last = [row["solve_rate"][1] for row in mine]
        pairs = [
            " -> ".join(f"{mean(lambda row, key=key, i=i: row[key][i]):.{digits}f}" for i in (0, 1))
            for key, digits in (("solve_rate", 3), ("eval", 3), ("length", 1))
        ]
        lines.append(
            f"| `{name}` | {len(mine)} | {pairs[0]} ({min(last):.3f} .. {max(last):.3f}) | {pairs[1]} | {pairs[2]} | "
            f"{mean(lambda row: row['samples']):,.0f} | {mean(lambda row: row['step_s']):.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
