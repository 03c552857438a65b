"""Runs next to each other: the table, the page of curves, and a sweep that ends with both."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_report import Balanced, points_of

from r1ray.compare import main
from r1ray.run.directory import open_run
from r1ray.run.loggers import JsonlLogger
from r1ray.run.stop import EXIT_CODE
from r1ray.sweep import run_each, suffixes


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run of 20 steps, evaluated at 0, 10 and 20."""

    def run(name: str, *accuracies: float, lr: float, stages: tuple[str, ...] = ("rl",), **config: Any) -> Path:
        raw = {"name": name, "run_dir": f"runs/{name}", "steps": 20, "trainer": {"lr": lr, "betas": [0.9]}, **config}
        made = open_run(tmp_path / "runs" / name, raw=raw, overrides=[])
        for stage in stages:
            log = JsonlLogger(made.stage(stage).metrics, first_step=0)
            for step in range(0, 21):
                row: dict[str, float] = {"reward/mean": step / 20, "time/step": 3.0} if step else {}
                if accuracies and step % 10 == 0:
                    row |= {"eval/aime/accuracy": accuracies[step // 10], "eval/aime/stderr": 0.01, "time/eval": 1.0}
                log.step(step, row)
        return made.path

    return run


def test_runs_are_compared_by_what_differs(make: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    low, high = make("low", 0.2, 0.5, 0.4, lr=1e-5), make("high", 0.2, 0.3, 0.6, lr=1e-4, algo={"name": "dapo"})
    short = make("short", lr=1e-5, stages=("sft", "rl"))
    assert main([str(low), str(high), str(short)]) == 0
    header, *rows, curves = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "run",
        "lr",
        "algo",
        *("last", "step"),
        *("aime", "first", "aime", "last", "aime", "best"),
        "reward",
        "time",
    ]
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    assert cells["low"][0:1] + cells["low"][-6:] == ["1e-05", "20", "0.200", "0.400", "0.500", "0.900", "1:03"]
    assert cells["high"][0] == "0.0001" and cells["high"][-4:-2] == ["0.600", "0.600"]
    assert set(cells) == {"low", "high", "short/sft", "short/rl"} and cells["short/rl"][-5:-2] == ["-", "-", "-"]
    page = Path(curves.removeprefix("curves: "))
    assert page == low.parent / "comparison.html"
    Balanced().feed(page.read_text())
    assert "http" not in page.read_text().replace("http://www.w3.org/2000/svg", "")
    accuracy = next(card for card in page.read_text().split("<figure") if "Accuracy on aime" in card)
    assert len(points_of(accuracy)) == 2 and "</i>low" in accuracy and "</i>high" in accuracy


def test_a_folder_without_a_run_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name, why in (("empty", "holds no run"), ("nowhere", "does not exist")):
        assert main([str(tmp_path / name)]) == 2
        assert f"{name} {why}: give run directories" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([["steps=9", "trainer.lr=1e-5"], ["steps=9", "trainer.lr=1e-4"]], ["_lr_1e-5", "_lr_1e-4"]),
        ([["algo=grpo", "seed=0"], ["algo=grpo", "seed=1"], ["algo=dapo", "seed=0"]],
         ["_algo_grpo_seed_0", "_algo_grpo_seed_1", "_algo_dapo_seed_0"]),
        ([["name=a", "seed=0"], ["name=b", "seed=0"]], ["", ""]),
        ([["model.path=org/a b"], ["model.path=org/a:b"]], ["_path_org-a-b_0", "_path_org-a-b_1"]),
        ([["a.lr=1", "b.lr=1"], ["a.lr=1", "b.lr=2"]], ["_lr_1", "_lr_2"]),
        ([["seed=1"]], [""]),
    ],
)  # fmt: skip
def test_names_of_a_sweep_have_the_values_that_differ(jobs: list[list[str]], expected: list[str]) -> None:
    assert suffixes(jobs) == expected


def test_a_sweep_counts_its_runs_goes_on_after_a_failure_and_ends_with_a_table(
    make: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a", "b", "c")
    runs: Any = [SimpleNamespace(config=SimpleNamespace(name=n, run_dir=str(tmp_path / "runs" / n))) for n in names]
    make("a", lr=1.0), make("c", lr=2.0)

    def main(run: Any) -> None:
        if run.config.name == ends[0]:
            raise SystemExit(ends[1])

    ends: tuple[str, Any] = ("b", "r1ray: no GPU")
    assert run_each(runs, main) == 1
    out, err = capsys.readouterr()
    assert [line.split(":")[1] for line in out.splitlines()[:3]] == [f" run {i} of 3" for i in (1, 2, 3)]
    assert [line.split()[:2] for line in out.splitlines()[3:6]] == [["run", "lr"], ["a", "1.0"], ["c", "2.0"]]
    assert err.splitlines() == ["r1ray: no GPU", "r1ray: 1 of 3 runs failed"]
    ends = ("b", EXIT_CODE)
    with pytest.raises(SystemExit):
        run_each(runs, main)
    assert "1 runs of the sweep were not started" in capsys.readouterr().err
