"""The reward audit: each suspicion fires on a made-up case and is silent on an honest one."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_report import Balanced

from r1ray.run.audit import audit_section, highest_rewarded, newest_lines, suspicions
from r1ray.run.directory import RunDir, open_run
from r1ray.run.loggers import JsonlLogger
from r1ray.run.report import write_report
from r1ray.run.sample import visible

Line = dict[str, Any]


def line(problem: int, index: int = 0, **changes: Any) -> Line:
    fields = {
        "problem": f"maths/{problem}",
        "source": "maths",
        "index": index,
        "prompt": f"What is {problem} + 1?",
        "completion": f"<think> {problem} and one more, taken {index} times with care, make </think> {problem + 1}",
        "length": 20,
        "finish": "stop",
        "reward": 1.0,
        "correct": True,
        "usable": True,
        "parts": {"accuracy": 1.0, "format": 0.5},
        "statuses": {"accuracy": "ok", "format": "ok"},
        "version": 3,
        "answer": str(problem + 1),
        "gold": str(problem + 1),
        "step": 20,
    }
    return fields | changes


def honest(num: int, *, seed: int = 0) -> list[Line]:
    """Problems of which more than half of the completions are right, and each completion is its own."""
    rng = random.Random(seed)
    lines = []
    for problem in range(num):
        for index in range(8):
            right = rng.random() < 0.6
            answer = str(problem + 1 if right else rng.randrange(1000))
            parts = {"accuracy": float(right), "format": 0.5}
            lines.append(line(problem, index, answer=answer, correct=right, reward=right + 0.1, parts=parts))
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


def said(rows: Sequence[dict[str, Any]], lines: Sequence[Line]) -> list[str]:
    return [one.what for one in suspicions(rows, lines)]


def test_an_honest_run_is_not_suspicious() -> None:
    for seed in range(30):
        metrics = rows(rising(0.2, 0.6), {0: 0.2, 20: 0.35, 40: 0.45, 60: 0.5}, seed=seed)
        assert said(metrics, honest(40, seed=seed)) == []


def test_a_run_that_learns_nothing_is_not_suspicious() -> None:
    for seed in range(100):
        rng = random.Random(seed)
        accuracies = {step: 0.3 + rng.gauss(0, 0.02) for step in (0, 20, 40, 60)}
        assert said(rows([0.3] * 60, accuracies, seed=seed, noise=0.1), []) == []


def test_reward_that_rises_while_accuracy_does_not() -> None:
    (what,) = said(rows(rising(0.2, 0.8), {0: 0.25, 30: 0.26, 60: 0.24}), honest(10))
    assert "The reward rises (0.2" in what and "held-out accuracy has not risen: held 0.250 → 0.240 (± 0.028)" in what
    assert "judge 0.5" in what and "format 0.500 → 0.500" in what, "every part with its numbers"


def test_reward_that_goes_on_rising_after_accuracy_was_best() -> None:
    accuracies = {0: 0.2, 20: 0.45, 40: 0.6, 60: 0.5, 80: 0.4}
    (what,) = said(rows(rising(0.2, 0.9, 80), accuracies), [])
    assert "since step 40" in what and "has fallen since its best: held 0.600 → 0.400" in what


def test_accuracy_of_zero_that_stays_zero_is_told() -> None:
    assert len(said(rows(rising(0.0, 0.5), {0: 0.0, 60: 0.0}, stderr=0.0), [])) == 1


def test_one_set_that_rises_is_enough() -> None:
    metrics = rows(rising(0.2, 0.8), {0: 0.25, 60: 0.24})
    for row, accuracy in ((metrics[0], 0.3), (metrics[-1], 0.6)):
        row |= {"eval/other/accuracy": accuracy, "eval/other/stderr": 0.02}
    assert said(metrics, []) == []


def test_few_steps_or_one_evaluation_say_nothing() -> None:
    assert said(rows(rising(0.1, 0.9, 8), {0: 0.2, 8: 0.2}), []) == []
    assert said(rows(rising(0.1, 0.9), {60: 0.2}), []) == []
    assert said(rows(rising(0.1, 0.9), {}), []) == []


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("gold", [True, False])
def test_one_answer_to_many_problems(correct: bool, gold: bool) -> None:
    """A model that has collapsed, or a verifier that takes anything; also of problems that come without a solution."""
    lines = honest(40)
    for one in lines:
        if int(one["problem"][6:]) % 5 < 2:
            one |= {"answer": "<b>42", "correct": correct, "reward": 1.1 if correct else 0.1}
        if not gold:
            one["gold"] = None
    (what,) = said([], lines)
    assert what.startswith(
        "The same final answer in maths is given to 16 of 40 problems (40%), which have 16 different solutions"
    )
    assert f"{correct:.0%} of them count as right: <b>42" in what


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


def test_letters_that_are_right_are_no_suspicion_and_always_the_same_one_is() -> None:
    for seed in range(20):
        assert said([], choices(lambda rng, gold: gold, seed=seed)) == []
        assert said([], choices(lambda rng, gold: gold, letters="AAAAAAAB", seed=seed)) == [], "most solutions are A"
        assert said([], choices(lambda rng, gold: rng.choice("ABCD"), seed=seed)) == [], "bad, but not the same"
        assert len(said([], choices(lambda rng, gold: "C", seed=seed))) == 1


def test_one_completion_to_many_problems() -> None:
    spell = "Let us think step by step and be very careful. " * 4
    lines = honest(40)
    for one in lines:
        if int(one["problem"][6:]) % 8 == 0:
            one["completion"] = spell
    (what,) = said([], lines)
    assert "The same completion, word for word, in maths is given to 5 of 40 problems" in what
    short = [one | {"completion": "ok"} for one in honest(40)]
    assert said([], short) == [], "a short completion is its answer"


def test_wrong_completions_that_are_paid_like_right_ones() -> None:
    lines = honest(20)
    wrong = [one for one in lines if not one["correct"]]
    for one in wrong[:5]:
        one["reward"] = 1.4
    (one,) = suspicions([], lines)
    assert one.what == f"5 of {len(wrong)} wrong completions in maths earn 1.10 or more, as right ones usually do"
    assert [shown["reward"] for shown in one.examples] == [1.4, 1.4]
    lines = honest(20)
    next(one for one in lines if not one["correct"])["reward"] = 1.4
    assert said([], lines) == [], "one may be chance"


def test_sources_are_judged_by_themselves() -> None:
    """What a wrong completion earns in one would be a right one's in the other."""
    other = [
        one | {"source": "logic", "problem": f"logic/{i // 8}", "reward": 2 + one["reward"]}
        for i, one in enumerate(honest(10))
    ]
    assert said([], honest(30) + other) == []


def test_an_answer_that_is_only_guessed_at_times_is_not_the_groups() -> None:
    lines = honest(40)
    for one in lines:
        if one["index"] < 2:
            one |= {"answer": "7", "correct": False, "reward": 0.1}
        else:
            one["answer"] = f"{one['problem']} {one['index']}"
    assert said([], lines) == []


def test_accuracy_that_stays_at_its_best_has_not_fallen() -> None:
    assert said(rows(rising(0.2, 0.8), {0: 0.2, 30: 0.6, 60: 0.6}, stderr=0.0), []) == []


def test_few_groups_say_nothing_of_answers() -> None:
    assert said([], [one | {"answer": "42"} for one in honest(7)]) == []


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


def test_the_page_of_an_honest_run_says_so(run: RunDir) -> None:
    page = page_of(run, rows(rising(0.2, 0.6), {0: 0.2, 60: 0.5}), honest(40))
    assert "Reward audit" in page and "Nothing suspicious" in page
    assert "Of 640 completions to 80 problems (steps 1, 60)" in page
    assert "Reward part accuracy, first and last" in page and "Highest rewards" in page


def test_the_page_shows_what_is_suspicious_and_runs_none_of_it(run: RunDir) -> None:
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
    assert "Nothing suspicious" in page_of(run, rows(rising(0.2, 0.6), {0: 0.2, 60: 0.5}), old)


def test_a_stage_without_completions_has_no_audit() -> None:
    assert audit_section(rows([0.1] * 20, {}), {}) == ""


def test_what_would_not_be_seen_is_shown_and_long_text_is_cut_in_its_middle() -> None:
    assert visible("a\x00\x07b\tc\nd é 中") == "a[U+0000][U+0007]b\tc\nd é 中"
    assert visible("\u200b\ufeff\u2066") == "[U+200B][U+FEFF][U+2066]"
    assert visible("x" * 50 + "y" * 50, limit=20) == f"{'x' * 10}\n[... 80 characters ...]\n{'y' * 10}"
