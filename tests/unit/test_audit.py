"""The reward audit: each finding appears in a constructed case and not in an honest one."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_report import Balanced

from r1ray.run.audit import audit_section, findings, highest_rewarded, newest_lines
from r1ray.run.card import visible
from r1ray.run.directory import RunDir, open_run
from r1ray.run.loggers import JsonlLogger
from r1ray.run.report import write_report

Line = dict[str, Any]


def line(problem: int, index: int = 0, **changes: Any) -> Line:
    fields = {
        "problem": f"maths/{problem}",
        "source": "maths",
        "index": index,
        "prompt": f"What is {problem} + 1?",
        "completion": f"<think> {problem} and one more, taken {index} times with care, make </think> {problem + 1}",
        "length": 20,
        "finish_reason": "stop",
        "reward": 1.0,
        "correct": True,
        "usable": True,
        "components": {"accuracy": 1.0, "format": 0.5},
        "statuses": {"accuracy": "ok", "format": "ok"},
        "version": 3,
        "answer": str(problem + 1),
        "gold": str(problem + 1),
        "step": 20,
    }
    return fields | changes


def honest(num: int, *, seed: int = 0) -> list[Line]:
    """Problems of which more than half of the completions are correct, and no two completions are equal."""
    rng = random.Random(seed)
    lines = []
    for problem in range(num):
        for index in range(8):
            correct = rng.random() < 0.6
            answer = str(problem + 1 if correct else rng.randrange(1000))
            components = {"accuracy": float(correct), "format": 0.5}
            lines.append(
                line(problem, index, answer=answer, correct=correct, reward=correct + 0.1, components=components)
            )
    return lines


def rows(
    rewards: Sequence[float], accuracies: dict[int, float], *, stderr: float = 0.02, noise: float = 0.02, seed: int = 0
) -> list[dict[str, Any]]:
    """A step for each reward, and evaluations after the steps named (0: before the first)."""
    rng = random.Random(seed)
    made: dict[int, dict[str, Any]] = {0: {"step": 0}}
    for step, reward in enumerate(rewards, 1):
        value = reward + rng.gauss(0, noise)
        made[step] = {"step": step, "reward/mean": value, "reward/judge/mean": 2 * value, "reward/format/mean": 0.5}
    for step, accuracy in accuracies.items():
        made[step] |= {"eval/held/accuracy": accuracy, "eval/held/stderr": stderr}
    return list(made.values())


def rising(begin: float, end: float, steps: int = 60) -> list[float]:
    return [begin + (end - begin) * step / steps for step in range(steps)]


def found_in(rows: Sequence[dict[str, Any]], lines: Sequence[Line]) -> list[str]:
    return [one.what for one in findings(rows, lines)]


def test_an_honest_run_has_no_findings() -> None:
    for seed in range(30):
        metrics = rows(rising(0.2, 0.6), {0: 0.2, 20: 0.35, 40: 0.45, 60: 0.5}, seed=seed)
        assert found_in(metrics, honest(40, seed=seed)) == []


def test_a_run_that_learns_nothing_has_no_findings() -> None:
    for seed in range(100):
        rng = random.Random(seed)
        accuracies = {step: 0.3 + rng.gauss(0, 0.02) for step in (0, 20, 40, 60)}
        assert found_in(rows([0.3] * 60, accuracies, seed=seed, noise=0.1), []) == []


def test_reward_that_rises_while_accuracy_does_not() -> None:
    (what,) = found_in(rows(rising(0.2, 0.8), {0: 0.25, 30: 0.26, 60: 0.24}), honest(10))
    assert "The reward rises (0.2" in what and "held-out accuracy has not risen: held 0.250 → 0.240 (± 0.028)" in what
    assert "judge 0.5" in what and "format 0.500 → 0.500" in what, "every component with its numbers"


def test_reward_that_keeps_rising_after_accuracy_was_best() -> None:
    accuracies = {0: 0.2, 20: 0.45, 40: 0.6, 60: 0.5, 80: 0.4}
    (what,) = found_in(rows(rising(0.2, 0.9, 80), accuracies), [])
    assert "since step 40" in what and "has fallen since its best: held 0.600 → 0.400" in what


def test_accuracy_that_stays_zero_is_found() -> None:
    assert len(found_in(rows(rising(0.0, 0.5), {0: 0.0, 60: 0.0}, stderr=0.0), [])) == 1


def test_one_set_that_rises_is_enough() -> None:
    metrics = rows(rising(0.2, 0.8), {0: 0.25, 60: 0.24})
    for row, accuracy in ((metrics[0], 0.3), (metrics[-1], 0.6)):
        row |= {"eval/other/accuracy": accuracy, "eval/other/stderr": 0.02}
    assert found_in(metrics, []) == []


def test_few_steps_or_one_evaluation_are_not_enough() -> None:
    assert found_in(rows(rising(0.1, 0.9, 8), {0: 0.2, 8: 0.2}), []) == []
    assert found_in(rows(rising(0.1, 0.9), {60: 0.2}), []) == []
    assert found_in(rows(rising(0.1, 0.9), {}), []) == []


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("gold", [True, False])
def test_one_answer_to_many_problems(correct: bool, gold: bool) -> None:
    """A model that has collapsed, or a verifier that accepts anything; also for problems without a known solution."""
    lines = honest(40)
    for one in lines:
        if int(one["problem"][6:]) % 5 < 2:
            one |= {"answer": "<b>42", "correct": correct, "reward": 1.1 if correct else 0.1}
        if not gold:
            one["gold"] = None
    (what,) = found_in([], lines)
    assert what.startswith(
        "The same final answer in maths is given to 16 of 40 problems (40%), which have 16 different solutions"
    )
    assert f"{correct:.0%} of them count as correct: <b>42" in what


def choices(
    answer_of: Callable[[random.Random, str], str], *, letters: str = "ABCD", num: int = 64, seed: int = 0
) -> list[Line]:
    rng = random.Random(seed)
    lines = []
    for problem in range(num):
        gold = rng.choice(letters)
        for index in range(8):
            answer = answer_of(rng, gold)
            lines.append(
                line(
                    problem,
                    index,
                    source="choice",
                    answer=answer,
                    gold=gold,
                    correct=answer == gold,
                    reward=float(answer == gold),
                )
            )
    return lines


def test_correct_letters_are_no_finding_and_always_the_same_letter_is() -> None:
    for seed in range(20):
        assert found_in([], choices(lambda rng, gold: gold, seed=seed)) == []
        assert found_in([], choices(lambda rng, gold: gold, letters="AAAAAAAB", seed=seed)) == [], (
            "most solutions are A"
        )
        assert found_in([], choices(lambda rng, gold: rng.choice("ABCD"), seed=seed)) == [], "random letters"
        assert len(found_in([], choices(lambda rng, gold: "C", seed=seed))) == 1


def test_one_completion_to_many_problems() -> None:
    spell = "Let us think step by step and be very careful. " * 4
    lines = honest(40)
    for one in lines:
        if int(one["problem"][6:]) % 8 == 0:
            one["completion"] = spell
    (what,) = found_in([], lines)
    assert "The same completion, word for word, in maths is given to 5 of 40 problems" in what
    short = [one | {"completion": "ok"} for one in honest(40)]
    assert found_in([], short) == [], "a short completion is its answer"


def test_incorrect_completions_that_are_rewarded_like_correct_ones() -> None:
    lines = honest(20)
    incorrect = [one for one in lines if not one["correct"]]
    for one in incorrect[:5]:
        one["reward"] = 1.4
    (one,) = findings([], lines)
    assert one.what == f"5 of {len(incorrect)} incorrect completions in maths earn 1.10 or more, like correct ones"
    assert [shown["reward"] for shown in one.examples] == [1.4, 1.4]
    lines = honest(20)
    next(one for one in lines if not one["correct"])["reward"] = 1.4
    assert found_in([], lines) == [], "one may be chance"


def test_sources_are_audited_separately() -> None:
    """An incorrect completion of one source earns what a correct one of the other source earns."""
    other = [
        one | {"source": "logic", "problem": f"logic/{i // 8}", "reward": 2 + one["reward"]}
        for i, one in enumerate(honest(10))
    ]
    assert found_in([], honest(30) + other) == []


def test_an_answer_of_few_completions_does_not_count_for_the_group() -> None:
    lines = honest(40)
    for one in lines:
        if one["index"] < 2:
            one |= {"answer": "7", "correct": False, "reward": 0.1}
        else:
            one["answer"] = f"{one['problem']} {one['index']}"
    assert found_in([], lines) == []


def test_accuracy_that_stays_at_its_best_has_not_fallen() -> None:
    assert found_in(rows(rising(0.2, 0.8), {0: 0.2, 30: 0.6, 60: 0.6}, stderr=0.0), []) == []


def test_few_groups_are_not_enough() -> None:
    assert found_in([], [one | {"answer": "42"} for one in honest(7)]) == []


def test_highest_rewarded_are_of_different_problems_and_usable() -> None:
    lines = [
        line(1, reward=9.0, usable=False),
        line(2, reward=3.0),
        line(2, 1, reward=2.5),
        line(3, reward=2.0),
        line(4),
    ]
    lines[3]["completion"] = lines[1]["completion"]
    assert [(one["problem"], one["reward"]) for one in highest_rewarded(lines)] == [("maths/2", 3.0), ("maths/4", 1.0)]


def written(folder: Path, step: int, lines: Sequence[Line]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:06d}.jsonl"
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines))
    return path


def test_the_newest_files_are_read_until_there_are_enough_groups(tmp_path: Path) -> None:
    files = {step: written(tmp_path, step, honest(24)) for step in (10, 20, 30, 40, 50)}
    assert {one["step"] for one in newest_lines(files)} == {30, 40, 50}
    many = {step: written(tmp_path, step, honest(1)) for step in range(1, 20)}
    assert {one["step"] for one in newest_lines(many)} == {15, 16, 17, 18, 19}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return open_run(tmp_path / "demo", raw={"name": "demo"}, overrides=[])


def page_of(run: RunDir, metrics: Sequence[dict[str, Any]], lines: Sequence[Line]) -> str:
    logger = JsonlLogger(run.stage("rl").metrics, first_step=0)
    for row in metrics:
        logger.step(row["step"], {name: value for name, value in row.items() if name != "step"})
    for step in (1, 60):
        written(run.stage("rl").rollouts, step, lines)
    page = write_report(run).read_text()
    Balanced().feed(page)
    return page


def test_page_of_an_honest_run(run: RunDir) -> None:
    page = page_of(run, rows(rising(0.2, 0.6), {0: 0.2, 60: 0.5}), honest(40))
    assert "Reward audit" in page and "No findings" in page
    assert "Of 640 completions of 80 problems (steps 1, 60)" in page
    assert "Reward component accuracy, first and last" in page and "Highest rewards" in page


def test_page_shows_findings_and_escapes_hostile_text(run: RunDir) -> None:
    hostile = "</li><script>alert(1)</script>\x1b[2K\u202e\u2028 <answer>"
    lines = [one | {"answer": hostile, "completion": hostile * 300} for one in honest(40)]
    page = page_of(run, rows(rising(0.2, 0.8), {0: 0.2, 60: 0.1}), lines)
    audit = page[page.index("Reward audit") : page.index("</body>")]
    assert audit.count("<li>") == 3
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page and "\u2028" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;[U+001B][2K[U+202E][U+2028]" in audit
    assert "characters ...]" in audit and len(page) < 500_000


def test_rollouts_of_earlier_versions_can_be_audited(run: RunDir) -> None:
    old = [{k: v for k, v in one.items() if k not in ("source", "answer", "gold", "step")} for one in honest(40)]
    assert "No findings" in page_of(run, rows(rising(0.2, 0.6), {0: 0.2, 60: 0.5}), old)


def test_a_stage_without_completions_has_no_audit() -> None:
    assert audit_section(rows([0.1] * 20, {}), {}) == ""


def test_invisible_characters_are_shown_and_long_text_is_cut_in_the_middle() -> None:
    assert visible("a\x00\x07b\tc\nd é 中") == "a[U+0000][U+0007]b\tc\nd é 中"
    assert visible("\u200b\ufeff\u2066") == "[U+200B][U+FEFF][U+2066]"
    assert visible("x" * 50 + "y" * 50, limit=20) == f"{'x' * 10}\n[... 80 characters ...]\n{'y' * 10}"
