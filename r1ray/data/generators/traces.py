"""The traces that the built-in base model was trained on: searches for Countdown solutions, and a small share of one-line tasks.

A search goes through the twelve possible first steps, starting at a random one: it combines two of the numbers, adds the third in
the way that looks best, writes out the values and says whether the target is reached. It often gives up too early; the answer is
then its last try, well-formed and incorrect. What reinforcement learning can improve is therefore clear: start at the first step
and keep searching. Each first step has a letter, so that a small model knows where it is: without letters searches lost their
place, went in circles and reached the length limit.

Example (`Make 24 from 5, 9, 6. Use each number once.`)::

    <think>d) 9 + 6 = 15, 15 + 5 = 20 no
    f) 9 * 5 = 45, 45 - 6 = 39 no
    g) 9 - 5 = 4, 4 * 6 = 24 yes
    </think> <answer>(9 - 5) * 6</answer>
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from r1ray.data.base import Item, Row, SourceArgs
from r1ray.data.generators import countdown, oneliners
from r1ray.data.generators.base import GeneratorArgs
from r1ray.data.schemas import text, user

NUM_PROBLEMS = 2500
"""Number of Countdown problems; each is used in many traces, with a different search each time."""
ONE_LINER_SHARE = 0.2
CHINESE_SHARE = 0.5
"""Share of the one-line tasks."""
FOREIGN_THOUGHT_SHARE = 0.5
"""Share of the Chinese tasks whose thought is in English, completely or half, so that the language reward can rise."""
INCORRECT_SHARE = 0.5
"""Share of one-line tasks that are answered incorrectly on purpose."""

LETTERS = "abcdefghijkl"
"""Of the first steps: three pairs times four operators."""
GIVE_UP = 0.85
"""Probability of giving up after each miss."""
STUBBORN_SHARE = 0.3
STUBBORN_GIVE_UP = 0.03
"""A few traces search for long; without them the model would not know how to continue a search."""
CARELESS = 0.1
"""Probability that the third number is added in a random way, not in the way that comes closest to the target."""


def read(row: Row, args: SourceArgs) -> Item:
    """A question and the completion to imitate."""
    return Item(messages=user(row["question"]), verifier="", response=text(row["response"]))


def generate(args: GeneratorArgs) -> Iterator[dict[str, Any]]:
    """Rows {id, question, response, kind}, the response without EOS. A row depends on `seed` and its index alone."""
    of_traces = countdown.CountdownArgs(split="traces", num_problems=NUM_PROBLEMS, seed=args.seed)
    problems = list(countdown.generate(of_traces))
    for index in range(args.num_problems):
        rng = np.random.default_rng([args.seed, index])
        if rng.random() < ONE_LINER_SHARE:
            yield {**one_liner(rng), "id": f"traces/{index}"}
            continue
        problem = problems[int(rng.integers(len(problems)))]
        yield {
            "id": f"traces/{index}",
            "question": problem["question"],
            "response": search(problem["numbers"], problem["target"], rng),
            "kind": "countdown",
        }


def search(numbers: Sequence[int], target: int, rng: np.random.Generator) -> str:
    """One search for `target` with three numbers."""
    give_up = STUBBORN_GIVE_UP if rng.random() < STUBBORN_SHARE else GIVE_UP
    steps = first_steps(numbers)
    start = int(rng.integers(len(steps)))
    thought = expression = ""
    for letter, a, sign, b, value, rest in steps[start:]:
        options = countdown.operations(value, rest)
        best = min(options, key=lambda option: abs(option[3] - target))
        careless = rng.random() < CARELESS
        left, sign_2, right, result = options[int(rng.integers(len(options)))] if careless else best
        inner = f"({a} {sign} {b})"
        expression = f"{inner} {sign_2} {rest}" if left == value else f"{rest} {sign_2} {inner}"
        line = f"{letter}) {a} {sign} {b} = {value}, {left} {sign_2} {right} = {result}"
        if result == target:
            thought += f"{line} yes\n"
            break
        thought += f"{line} no\n"
        if rng.random() < give_up:
            break
    else:
        thought += "none left\n"
    return f"<think>{thought}</think> <answer>{expression}</answer>"


def first_steps(numbers: Sequence[int]) -> list[tuple[str, int, str, int, int, int]]:
    """The first steps, largest numbers first: (letter, left, operator, right, result, the third number).

    A letter stands for a pair and an operator; it is skipped where values would leave the allowed range.
    """
    x, y, z = sorted(numbers, reverse=True)
    ways = [(*pair, sign) for pair in ((x, y, z), (x, z, y), (y, z, x)) for sign in "/*-+"]
    found: list[tuple[str, int, str, int, int, int]] = []
    for letter, (a, b, rest, sign) in zip(LETTERS, ways, strict=True):
        for _, taken, _, value in countdown.operations(a, b):
            if taken == sign and countdown.operations(value, rest):
                found.append((letter, a, sign, b, value, rest))
    return found


def one_liner(rng: np.random.Generator) -> dict[str, str]:
    """{question, response, kind}; kind ends in `_zh` for a Chinese question."""
    kind = str(rng.choice(list(oneliners.KINDS)))
    task = oneliners.KINDS[kind](rng)
    language: oneliners.Language = "zh" if rng.random() < CHINESE_SHARE else "en"
    thoughts, answer = task.incorrect if rng.random() < INCORRECT_SHARE else task.correct
    thought = thoughts[language]
    if language == "zh" and rng.random() < FOREIGN_THOUGHT_SHARE:
        thought = thoughts["en"] if rng.random() < 0.5 else f"{thoughts['en']} {thoughts['zh']}"
    return {
        "question": task.question[language],
        "response": f"<think>{thought}</think> <answer>{answer}</answer>",
        "kind": kind if language == "en" else f"{kind}_zh",
    }
