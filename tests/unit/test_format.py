"""R1-Zero's format reward: every tag once, in order, some reasoning, nothing after the answer."""

import pytest
from reward_samples import completion, context, given, problem, value

from r1ray.reward.format import code_format, format_reward, format_soft, tag_count, think_format


def value_of(text: str, *, prefill: str = "") -> float | None:
    (score,) = given(format_reward, problem(prefill=prefill), [completion(text)], context())
    assert score.correct is None
    assert score.status == ("ok" if score.value else "wrong_answer")
    return score.value


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><answer>b</answer>",
        " <think>\na\n</think>\n\n<answer>\nb\n</answer>\n ",
        "<think>a < b </ think></think> <answer>b <b></answer>",
    ],
)
def test_valid_formats_score_1(text: str):
    assert value_of(text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "<think></think> <answer>b</answer>",
        "<think> \n </think> <answer>b</answer>",
        "<think>a</think>",
        "<answer>b</answer>",
        "<think>a <answer>b</answer></think>",
        "<answer>b</answer> <think>a</think>",
        "x <think>a</think> <answer>b</answer>",
        "<think>a</think> so <answer>b</answer>",
        "<think>a</think> <answer>b</answer> done",
        "<think>a</think> <answer>b</answer>\ntrailing",
        "<think>a</think> <answer>b</answer><|endoftext|>",
        "<think><think>a</think> <answer>b</answer>",
        "<think>a</think></think> <answer>b</answer>",
        "<think>a</think> <answer>b</answer> <answer>c</answer>",
        "<think>a</think> <answer>b",
        "<THINK>a</THINK> <ANSWER>b</ANSWER>",
        "<think>a" * 50_000,
    ],
)
def test_invalid_formats_score_0(text: str):
    assert value_of(text) == 0.0


def test_prefilled_tag_counts_as_part_of_the_completion():
    assert value_of("a</think> <answer>b</answer>", prefill="<think>\n") == 1.0
    assert value_of("<think>a</think> <answer>b</answer>", prefill="<think>\n") == 0.0


@pytest.mark.parametrize(
    ("text", "soft", "think", "tags"),
    [
        ("<think>\na\n</think>\n<answer>\nb\n</answer>", 1.0, 1.0, 1.0),
        ("x <think>a</think> so <answer>b</answer> done", 1.0, 0.0, 0.0),
        ("<think>a</think> b", 0.0, 1.0, 0.0),
        ("<think>a</think> ", 0.0, 0.0, 0.0),
        ("<think> </think> b", 0.0, 0.0, 0.0),
        ("<answer>b</answer> <think>a</think>", 0.0, 0.0, 0.0),
        ("<think>a</think> <think>c</think> <answer>b</answer>", 0.0, 0.0, 0.0),
        ("<think>\na\n</think>\nb", 0.0, 1.0, 0.5),
        ("<think>\n<think>\na\n</think>\n<answer>\nb\n</answer>", 0.0, 0.0, 0.75),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_other_format_rewards(text: str, soft: float, think: float, tags: float):
    assert [value(reward, text) for reward in (format_soft, think_format, tag_count)] == [soft, think, tags]


@pytest.mark.parametrize(
    ("answer", "language", "good"),
    [
        ("Thus:\n```python\nprint(1)\n```\n", "python", True),
        ("```cpp\nint main() {}\n```", "cpp", True),
        ("```cpp\nint main() {}\n```", "python", False),
        ("```\nprint(1)\n```", "python", False),
        ("```python\nprint(1)", "python", False),
        ("print(1)", "python", False),
    ],
)
def test_code_format_requires_a_named_block_in_the_answer(answer: str, language: str, good: bool) -> None:
    asked = problem(verifier="code", payload={"language": language})
    assert value(code_format, f"<think>a</think>\n<answer>{answer}</answer>", asked=asked) == float(good)
    assert value(code_format, f"<think>a</think>\n{answer}", asked=asked) == 0.0
    assert value(code_format, f"<answer>{answer}</answer>", asked=asked) == 0.0
