"""The check reads the data and the model's files: what would end a run after its start is found before."""

import json
from pathlib import Path

import pytest

from r1ray.cli import check_command_line
from r1ray.config.run import best_metric

EVALUATION = (
    "every_steps: 0\nbefore_training: true\nnum_samples: 1\npass_at: [1]\ntemperature: 1.0\ntop_p: 1.0\nseed: 1\n"
)


def write_rows(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("own", ["mine", "gsm8k"])
def test_smoke_runs_with_the_evaluation_set_of_a_user(workplace: Path, own: str) -> None:
    path = write_rows(workplace / "rows.jsonl", {"prompt": "2 + 2?", "answer": "4"})
    (workplace / "eval").mkdir()
    sets = f"sets:\n  {own}: {{source: rows, path: {path}}}\n"
    (workplace / "eval" / "my_set.yaml").write_text(sets + EVALUATION)
    (run,) = check_command_line([f"--config-dir={workplace}", "scale=smoke", "eval=my_set"])
    assert list(run.config.eval.sets) == [own] and run.config.steps == 3
    assert best_metric(run.config) == f"eval/{own}/accuracy"


def test_smoke_evaluates_few_problems_of_the_default_set_and_any_other_set() -> None:
    (run,) = check_command_line(["scale=smoke"])
    assert run.config.eval.sets["countdown"].args["num_problems"] == 16
    for others in ("knights_and_knaves", "poems"):
        assert check_command_line(["scale=smoke", f"eval={others}"])
    (run,) = check_command_line(["scale=smoke", "eval.sets.countdown=null"])
    assert best_metric(run.config) is None
