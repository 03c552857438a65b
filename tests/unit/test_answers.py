"""Extractors of the final answer: with and without `</think>`, on hostile text, and where several candidates exist."""

import time
from typing import Any

import pytest
from reward_samples import completion, context, problem

from r1ray.evaluator import answers_of
from r1ray.reward.accuracy import accuracy
from r1ray.reward.answers import EXTRACTORS
from r1ray.types import Group, Score

THOUGHT = "<think>\\boxed{9} <answer>9</answer> <answer>\\boxed{9}</answer>\nAnswer: 9\n#### 9\n 9"
FORMS = {
    "boxed": (r"so \boxed{1} or \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    "answer": ("<answer>1</answer> or <answer> 2 </answer>", "2"),
    "boxed_in_answer": (r"\boxed{1} <answer>so \boxed{2}</answer> \boxed{3}", "2"),
    "answer_line": ("Answer: 1\nAnswer:  $x = 2$ \nmore", "$x = 2$"),
    "gsm8k": ("#### 1\nno:\n#### -1,250.5\n7", "-1250.5"),
    "last_number": ("1 and 2,000 and 3,000.50, thus.", "3000.50"),
    "option": ("<answer>(b) two</answer>", "B"),
    "labelled_line": ("Answer: 1\n**Réponse :** $x = 2$ \nmore", "$x = 2$"),
    "stated": ("The answer is 1. So the answer is 3.5. Done.", "3.5"),
    "stated_option": ("The answer is A. So the answer is (B).", "B"),
    "deepscaler": (r"\boxed{1} \boxed{2}", "2"),
    "skywork": (r"\boxed{1} \boxed{2}", "2"),
    "dapo": ("ANSWER: 1\nThus the answer : $x = 2$ \nmore", "$x = 2$"),
    "oat_r1": (r" <answer> so \boxed{1} or \boxed{2} </answer>", "2"),
}
"""{name: (a text, the answer in it)}."""


@pytest.mark.parametrize("name", EXTRACTORS)
def test_answer_is_read_after_the_thinking(name: str) -> None:
    text, answer = FORMS[name]
    assert EXTRACTORS[name](f"{THOUGHT}</think>{text}") == answer
    assert EXTRACTORS[name](f"{THOUGHT}</think>") == ("9" if name == "dapo" else None)
    assert EXTRACTORS[name]("") is None


@pytest.mark.parametrize("name", EXTRACTORS)
def test_completion_without_thinking_is_read_whole_unless_the_tag_is_required(name: str) -> None:
    text, answer = FORMS[name]
    assert EXTRACTORS[name](text) == (None if name in ("deepscaler", "oat_r1") else answer)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_unclosed_thinking_contains_no_answer_except_for_two_extractors(name: str) -> None:
    text, answer = FORMS[name]
    assert EXTRACTORS[name](f"<think>{text}") == (answer if name in ("skywork", "dapo") else None)
    assert EXTRACTORS[name](f"<think>a</think> b <think>{text}") == (
        answer if name in ("deepscaler", "skywork", "dapo") else None
    )


def test_several_closing_tags() -> None:
    text = r"a</think>\boxed{1}</think>\boxed{2}"
    assert [EXTRACTORS[name](text) for name in ("boxed", "deepscaler", "skywork")] == ["2", "1", "1"]


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("boxed", r"\boxed{\{1, 2\}} and \boxed{3", None),
        ("boxed", "7", None),
        ("answer", "<answer>7", None),
        ("boxed_in_answer", r"<answer>7</answer> \boxed{7}", None),
        ("boxed_in_answer", r"<answer>\boxed{7}", None),
        ("oat_r1", "so</think> <answer> 7 </answer>", "7"),
        ("oat_r1", "so</think>\n<answer> 7 </answer>", None),
        ("oat_r1", "so</think> <answer> 7", None),
        ("oat_r1", r"so</think> <answer> \boxed{7 </answer>", None),
        ("answer_line", "The Answer: 7", None),
        ("dapo", f"Answer: 7\n{'x' * 290}", "7"),
        ("dapo", f"Answer: 7\n{'x' * 291}", None),
        ("dapo", "Answer:", None),
        ("answer_line", "Answer:", None),
        ("gsm8k", "#### 36 pens", "36"),
        ("gsm8k", "#### thirty-six", None),
        ("gsm8k", "### 36", None),
        ("gsm8k", "####36", "36"),
        ("last_number", "5-3", "3"),
        ("last_number", "x = -3", "-3"),
        ("last_number", "(2)-3", "3"),
        ("last_number", "得-3", "-3"),
        ("last_number", "about .5", ".5"),
        ("last_number", "1,2", "2"),
        ("last_number", "$18.", "18"),
        ("last_number", "١٢", None),
        ("last_number", "none", None),
        ("option", "B", None),
    ],
)
def test_extracted_answer(name: str, text: str, answer: str | None) -> None:
    assert EXTRACTORS[name](text) == answer


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize(
    "unit",
    [r"\boxed{", r"\boxed ", "<answer>", "</answer>", "<think>", "</think>", "7", "1,", ",000", "-", "#", "#### ", "Answer:\n",
     "Answer: ", " ", "\n", "{", "}", "\\", "(", "<answer>\\boxed{</answer>", "</think>\\boxed{"],
)  # fmt: skip
def test_megabyte_of_hostile_text_is_fast(name: str, unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    for hostile in (text, f"</think>\\boxed{{<answer>####{text}"):
        EXTRACTORS[name](hostile)
    assert time.process_time() - start < 3


def test_reward_and_vote_use_the_same_answer() -> None:
    def results_of(**fields: Any) -> tuple[list[bool | None], list[str | None]]:
        asked = problem(verifier="exact", payload={"answers": ["7"]}, **fields)
        completions = (completion(r"\boxed{7} or 8"), completion(r"\boxed{8}, or 7"), completion("none"))
        scores = accuracy(asked, completions, context())
        unscored = Score(reward=0.0, correct=None, components={}, statuses={}, usable=True, seconds=0.0)
        votes = answers_of(Group(problem=asked, completions=completions, scores=(unscored,) * 3))
        return [score.correct for score in scores], votes

    assert results_of() == ([True, False, False], ["7", "8", None])
    assert results_of(extract="last_number") == ([False, True, False], ["8", "7", None])
    assert results_of(extract=f"{__name__}:shout") == ([False, False, False], ["OR 8", "OR 7", "NONE"])


def shout(text: str) -> str:
    """An extractor from outside."""
    return text.upper()[-4:]


def test_option_letter_is_read_from_the_extracted_answer() -> None:
    asked = problem(verifier="choice", payload={"answers": ["B"]}, extract="boxed")
    scores = accuracy(asked, [completion(r"\boxed{(b) two}"), completion("<answer>B</answer>")], context())
    assert [score.correct for score in scores] == [True, False]


def test_unknown_extractor_is_refused() -> None:
    (score,) = accuracy(problem(extract="boxd"), [completion("1")], context())
    assert score.value is None and score.error is not None and "did you mean boxed" in score.error.message
