"""Language consistency: what counts as a word, and in which language."""

import pytest
from reward_samples import completion, context, problem, value

from r1ray.reward.language import LANGUAGES, language
from r1ray.reward.text import thinking, without


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("<think>We add the numbers</think> 答案", "en", 1.0),
        ("<think>我们 add 数</think>", "zh", 3 / 4),
        ("<think>我们 add 数</think>", "en", 1 / 4),
        ("we get x = 3 and n", "en", 1.0),
        ("设 x 为 $\\frac{x}{2}$ 米", "zh", 1.0),
        ("我们 $$ let us think $$", "zh", 2 / 5),
        ("代码 `item_list` 和 ```python\nprint(input())\n``` 完", "zh", 1.0),
        (r"\(x\) 我 \[ y \] \frac{1}{2} \times 们", "zh", 1.0),
        ("`我们用中文` `推理` ok", "en", 1.0),
        ("`we think in english` 我", "zh", 1 / 5),
        ("これは test", "ja", 3 / 4),
        ("漢字とかな", "ja", 1.0),
        ("우리는 더한다 and", "ko", 2 / 3),
        ("мы складываем the numbers", "ru", 0.5),
        ("naïve Übung", "de", 1.0),
        ("<think>all done</think> <think>我们</think>", "en", 2 / 4),
        ("12 + 5 = 17", "en", 0.0),
        ("", "zh", 0.0),
        ("$5 and 我们 then 10 $", "en", 0.5),
    ],
)
def test_share_of_target_words(text: str, target: str, expected: float) -> None:
    assert value(language, text, asked=problem(language=target)) == pytest.approx(expected)


def test_unknown_language_is_named() -> None:
    (score,) = language(problem(language="tlh"), [completion("text")], context())
    assert score.value is None and score.error is not None and "'tlh' is not one of zh, ja" in score.error.message
    assert {"en", "zh"} <= set(LANGUAGES)


def test_thinking_is_everything_before_the_last_closing_tag() -> None:
    assert thinking("<think>a</think> b </think> c").split() == ["a</think>", "b"]
    assert thinking("a b") == "a b"


def test_without_keeps_unclosed_text() -> None:
    assert without("a `b` c `d", "`", "`") == "a   c `d"
