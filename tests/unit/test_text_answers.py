"""Exact match and F1 of text answers, with SQuAD's script, rewritten here, as the reference where r1ray does not deviate."""

import re
import string
from collections import Counter

import pytest
from reward_samples import completion, context, problem, value

from r1ray.reward.accuracy import accuracy
from r1ray.reward.spans import f1, same_text, words_of
from r1ray.reward.text_f1 import text_f1


def squad(text: str) -> list[str]:
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def squad_f1(answer: str, gold: str) -> float:
    left, right = squad(answer), squad(gold)
    same = sum((Counter(left) & Counter(right)).values())
    return 2 * same / (len(left) + len(right)) if same else 0.0


def test_words_and_f1_are_those_of_squad() -> None:
    texts = [
        "The Eiffel Tower!",
        "eiffel tower",
        "a tower, the tower",
        "U.S. Army",
        "an army of one",
        "Beyoncé",
        "$1,000",
        "1000",
    ]
    for text in texts:
        assert words_of(text) == squad(text), text
        for gold in texts:
            assert f1(text, gold) == pytest.approx(squad_f1(text, gold)), (text, gold)
            assert same_text(text, gold) is (squad(text) == squad(gold)), (text, gold)
    assert f1("tower tower", "tower") == pytest.approx(2 / 3), "a word counts as often as both have it"


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("the", "a", False),
        ("The", "the", True),
        ("", "the", False),
        ("?", "!", False),
        ("?", "?", True),
        ("", "", False),
        ("vitamin A", "vitamin", False),
        ("3.5", "35", False),
        (".5", "5", False),
        ("-5", "5", False),
        ("\u22125", "-5", True),
        ("10:30", "1030", False),
        ("1,000.", "1000", True),
        ("1,5", "15", False),
        ("C++", "C", False),
        ("C#", "c", False),
        ("(London)", "london", True),
        ("\uff2c\uff4f\uff4e\uff44\uff4f\uff4e", "london", True),
        ("北 京。", "北京", True),
        ("「北京」", "北京", True),
        ("北京", "南京", False),
        ("not London", "London", False),
    ],
)  # fmt: skip
def test_wrong_texts_are_never_equal(answer: str, gold: str, same: bool) -> None:
    assert same_text(answer, gold) is same
    assert (f1(answer, gold) == 1) is same


def test_tokens_of_chinese_are_characters_and_articles_are_english() -> None:
    assert f1("北京市", "北京") == pytest.approx(2 * 2 / 5)
    assert words_of("A Coruña hoy", language="es") == ["a", "coruña", "hoy"]
    assert not same_text("the a team", "team b", language="de")


def test_best_gold_counts_in_verifier_and_reward() -> None:
    asked = problem(verifier="text_match", payload={"answers": ["New York City", "Big Apple"]})
    texts = ["<answer>the big apple.</answer>", "<answer>New York</answer>", "New York City", "<answer></answer>"]
    scores = accuracy(asked, [completion(text) for text in texts], context())
    assert [score.correct for score in scores] == [True, False, False, False]
    assert [value(text_f1, text, asked=asked) for text in texts] == pytest.approx([1, 0.8, 0, 0])
    by_line = problem(verifier="text_match", payload={"answers": ["Paris"]}, extract="answer_line")
    assert value(text_f1, "so\nAnswer: Paris", asked=by_line) == 1
    assert value(text_f1, "<answer>Paris</answer>", asked=problem(payload={"tests": []})) is None
    assert value(text_f1, f"<answer>{'Paris ' * 1000}</answer>", asked=asked) == 0
