"""Multiple choice, exact text, knights and knaves, patches: correct, incorrect and unreadable answers."""

import numpy as np
import pytest
from reward_samples import completion, context, problem, value

from r1ray.data.generators.oneliners import KINDS
from r1ray.reward.accuracy import accuracy
from r1ray.reward.choice import chosen
from r1ray.reward.logic import logic_rl, roles
from r1ray.reward.swe import BadPatch, apply, blocks, patch_similarity, similarity


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("\\boxed{(A) or (B)}", None),
        ("\\boxed{(A) (B)}", None),
        ("\\boxed{A.B}", None),
        ("\\boxed{A. B. C. D}", None),
        ("\\boxed{\\textbf{(C)}\\ 5}", "C"),
        ("<answer>The answer is C</answer>", "C"),
        ("<answer>(B) x.</answer>", "B"),
        ("<answer>B</answer>", "B"),
        ("<answer> (b) </answer>", "B"),
        ("<answer>B) the second, or C</answer>", "B"),
        ("<answer>B. A bee</answer>", "B"),
        ("<answer>Option D</answer>", "D"),
        ("<answer>选项 C</answer>", "C"),
        ("<answer>**A**</answer>", "A"),
        (r"so \boxed{\text{C}}", "C"),
        (r"\boxed{(A)} and finally \boxed{D}", "D"),
        ("Thus:\nAnswer: E", "E"),
        ("<answer>A man</answer>", None),
        ("<answer>AB</answer>", None),
        ("<answer>A or B</answer>", None),
        ("<answer>A, B</answer>", None),
        ("<answer>A, B, C, D</answer>", None),
        ("<answer></answer>", None),
        ("<think><answer>A</answer></think> B", None),
        ("A", None),
        ("<answer>" + "(" * 3000 + "A</answer>", None),
    ],
)
def test_letter_of_an_option_is_read(answer: str, letter: str | None) -> None:
    assert chosen(answer) == letter


@pytest.mark.parametrize(
    ("answer", "correct"),
    [("New  York", True), ("new york", False), ("New York City", False), ("NYC", True), ("", False)],
)
def test_exact_answers_are_compared_as_text(answer: str, correct: bool) -> None:
    asked = problem(verifier="exact", payload={"answers": ["New York", "NYC"]})
    (score,) = accuracy(asked, [completion(f"<answer>{answer}</answer>")], context())
    assert (score.correct, score.value) == (correct, float(correct))


CORRECT = "(1) Ann is a knight (2) Bob is a knave"


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        (CORRECT, 3.0),
        ("ann is a KNIGHT\nand bob is a  knave.", 3.0),
        ("(1) Bob is a knave (2) Ann is a knight", 3.0),
        ("(1) Ann is a knave (2) Bob is a knave", -0.5),
        ("(1) Ann is a knight", -0.5),
        (CORRECT + " (3) Eve is a knight", -0.5),
        (CORRECT + " (3) Bob is a knight", -1.0),
        ("Ann is a knight or a knave, Bob is a knave", -1.0),
        ("nobody knows", -1.0),
        ("", -1.0),
    ],
)
def test_reward_of_knights_and_knaves_answers(answer: str, reward: float) -> None:
    asked = problem(verifier="logic", payload={"answers": [CORRECT]})
    response = f"<think>hm</think> <answer>{answer}</answer>"
    assert value(logic_rl, response, asked=asked) == reward
    (score,) = accuracy(asked, [completion(response)], context())
    assert score.correct == (reward == 3.0)


def test_knights_and_knaves_answers_without_format_get_the_lowest_reward() -> None:
    asked = problem(verifier="logic", payload={"answers": [CORRECT]})
    for response in (
        CORRECT,
        f"<answer>{CORRECT}</answer>",
        f"<think>a</think><answer>{CORRECT}",
        f"<answer>{CORRECT}</answer><think>a</think>",
    ):
        assert value(logic_rl, response, asked=asked) == -3.0


def test_unreadable_gold_accepts_no_answer() -> None:
    asked = problem(verifier="logic", payload={"answers": ["Ann: knight; Bob: knave"]})
    (score,) = accuracy(asked, [completion("<think>a</think><answer>whatever</answer>")], context())
    assert score.correct is False


def test_roles_are_read() -> None:
    assert roles(CORRECT) == {"ann": "knight", "bob": "knave"}


def block(search: str, replace: str, path: str = "a.py") -> str:
    return f"### {path}\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


ASKED = problem(payload={"files": {"a.py": "x = 1\ny = 2\n", "b.py": "z = 3\n"}, "patched": {"a.py": "x = 5\ny = 2\n"}})


def patched(answer: str, thought: str = "so") -> float | None:
    return value(patch_similarity, f"<think>{thought}</think> <answer>```python\n{answer}```</answer>", asked=ASKED)


def test_patch_reward_is_the_similarity_to_the_merged_patch() -> None:
    assert patched(block("x = 1", "x = 5")) == 1.0
    close, far = patched(block("x = 1", "x = 6")), patched(block("y = 2", "z = 'something else'"))
    assert close is not None and far is not None
    assert 0.9 < close < 1 and 0.2 < far < 0.8
    other_file = patched(block("z = 3", "z = 5", path="b.py"))
    assert other_file == 0.0
    both = patched(block("x = 1", "x = 5") + block("z = 3", "z = 5", path="b.py"))
    assert both == 0.5


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "x = 5",
        block("x = 1", "x = 1"),
        block("x = 9", "x = 5"),
        block("x = 1", "x = 5", path="c.py"),
        block("x = 1", "x = 5").replace(">>>>>>> REPLACE", ""),
        block("x = 1", "x = 5").replace("### a.py\n", ""),
    ],
)
def test_invalid_patch_gets_minus_one(answer: str) -> None:
    assert patched(answer) == -1.0


def test_patches_apply_to_whole_lines_and_can_create_files() -> None:
    assert apply(blocks(block("y = 2", "y = 3")), {"a.py": "my = 2\ny = 2"}) == {"a.py": "my = 2\ny = 3"}
    with pytest.raises(BadPatch):
        apply(blocks(block("y = 2", "y = 3")), {"a.py": "    y = 2\n"})
    made = apply(blocks("### new.py\n<<<<<<< SEARCH\n=======\nz = 1\n>>>>>>> REPLACE"), {"a.py": "x\n"})
    assert made == {"a.py": "x\n", "new.py": "z = 1\n"}
    with pytest.raises(BadPatch):
        apply(blocks("### a.py\n<<<<<<< SEARCH\n=======\nz = 1\n>>>>>>> REPLACE"), {"a.py": "x\n"})
    removed = "### a.py\n<<<<<<< SEARCH\ny\n=======\n>>>>>>> REPLACE"
    assert apply(blocks(removed), {"a.py": "x\ny\nz\n"}) == {"a.py": "x\nz\n"}


def test_patch_without_thinking_gets_minus_one() -> None:
    assert patched(block("x = 1", "x = 5"), thought=" ") == -1.0


def test_blocks_are_applied_in_order() -> None:
    patch = blocks(block("x = 1", "x = 2") + block("x = 2", "x = 3"))
    assert apply(patch, {"a.py": "x = 1\n"}) == {"a.py": "x = 3\n"}
    with pytest.raises(BadPatch):
        blocks("<<<<<<< SEARCH\nx\n=======\n")


def test_empty_patch_equals_an_empty_merged_patch() -> None:
    assert similarity({}, {}) == 1.0


@pytest.mark.parametrize(("kind", "verifier"), [("boxed", "math"), ("choice", "choice"), ("logic", "logic")])
def test_one_liners_are_verified_as_generated(kind: str, verifier: str) -> None:
    for seed in range(50):
        task = KINDS[kind](np.random.default_rng(seed))
        asked = problem(verifier=verifier, payload=task.payload)
        completions_G = [
            completion(f"<think>{way[0]['en']}</think> <answer>{way[1]}</answer>")
            for way in (task.correct, task.incorrect)
        ]
        assert [score.correct for score in accuracy(asked, completions_G, context())] == [True, False]


def test_one_line_patches_are_verified_as_generated() -> None:
    for seed in range(50):
        task = KINDS["patch"](np.random.default_rng(seed))
        asked = problem(payload=task.payload)
        correct, wrong = (
            value(patch_similarity, f"<think>{way[0]['en']}</think> <answer>{way[1]}</answer>", asked=asked)
            for way in (task.correct, task.incorrect)
        )
        assert correct == 1.0 and wrong is not None and 0 < wrong < 1
