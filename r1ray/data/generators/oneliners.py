"""One-line tasks in the answer formats of the rewards, in English and Chinese: box, option letter, puzzle, program, patch.

The built-in model has seen a few of each, half of them with an incorrect answer on purpose (`r1ray.data.generators.traces`), so
that it knows every format and every kind of reward can rise.
"""
# ruff: noqa: RUF001  (Chinese punctuation is meant)

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from r1ray.data.base import Item, Row, SourceArgs
from r1ray.data.generators.base import GeneratorArgs
from r1ray.data.schemas import user
from r1ray.sandbox.base import Language as ProgramLanguage

Language = Literal["en", "zh"]

NAMES = ("Ann", "Bob", "Eve", "Leo", "Mia", "Tom")
LETTERS = "ABCD"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneLiner:
    """A task with a correct and a plausible incorrect completion, each as (thought in each language, answer)."""

    key: str
    """Identifies the task among those of its kind, in any language."""
    question: Mapping[Language, str]
    correct: tuple[Mapping[Language, str], str]
    incorrect: tuple[Mapping[Language, str], str]
    payload: Mapping[str, Any]
    """What a verifier reads: {"answers": [...]}, {"tests": [...]} or {"files": ..., "patched": ...}."""


def boxed(rng: np.random.Generator) -> OneLiner:
    """A sum or a product, answered in a LaTeX box."""
    a, b = (int(n) for n in rng.integers(1, 13, size=2))
    sign = str(rng.choice(["+", "*"]))
    correct = a + b if sign == "+" else a * b
    incorrect = correct + int(rng.choice([-2, -1, 1, 2]))

    def way(value: int) -> tuple[Mapping[Language, str], str]:
        text = f"{a} {sign} {b} = {value}"
        return {"en": f"We get {text}", "zh": f"我们得到 {text}"}, f"\\boxed{{{value}}}"

    return OneLiner(
        key=f"{a}{sign}{b}",
        question={"en": f"What is {a} {sign} {b}? Box the answer.", "zh": f"{a} {sign} {b} 是多少？把答案放进框里。"},
        correct=way(correct),
        incorrect=way(incorrect),
        payload={"answers": [str(correct)]},
    )


def choice(rng: np.random.Generator) -> OneLiner:
    """The largest of four numbers, answered by its letter."""
    options = [int(n) for n in rng.choice(np.arange(1, 100), size=4, replace=False)]
    correct = int(np.argmax(options))
    incorrect = (correct + int(rng.integers(1, 4))) % 4
    listed = " ".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=True))

    def way(index: int) -> tuple[Mapping[Language, str], str]:
        return {"en": f"The largest is {options[index]}", "zh": f"最大的是 {options[index]}"}, LETTERS[index]

    return OneLiner(
        key="-".join(map(str, options)),
        question={"en": f"Which is the largest? {listed}", "zh": f"哪个最大？ {listed}"},
        correct=way(correct),
        incorrect=way(incorrect),
        payload={"answers": [LETTERS[correct]]},
    )


_CLAIMS: dict[str, tuple[str, str, Callable[[bool, bool], bool]]] = {
    "knight": ("{other} is a knight", "{other}是骑士", lambda _, other: other),
    "knave": ("{other} is a knave", "{other}是骗子", lambda _, other: not other),
    "same": ("we are the same", "我们一样", lambda me, other: me == other),
    "differ": ("we differ", "我们不一样", lambda me, other: me != other),
    "both": ("we are both knights", "我们都是骑士", lambda me, other: me and other),
    "neither": ("we are both knaves", "我们都是骗子", lambda me, other: not me and not other),
}


_PAIRS = [(a, b) for a in (True, False) for b in (True, False)]


def _solutions(claims: tuple[str, str]) -> list[tuple[bool, bool]]:
    """Every consistent assignment of knight (True) and knave: knights speak the truth, knaves never."""
    first, second = (_CLAIMS[claim][2] for claim in claims)
    return [(a, b) for a, b in _PAIRS if first(a, b) == a and second(b, a) == b]


PUZZLES = [claims for claims in ((a, b) for a in _CLAIMS for b in _CLAIMS) if len(_solutions(claims)) == 1]


def logic(rng: np.random.Generator) -> OneLiner:
    """Knights and knaves with two people, answered in Logic-RL's form (arXiv 2502.14768)."""
    a, b = (str(name) for name in rng.choice(NAMES, size=2, replace=False))
    claims = PUZZLES[int(rng.integers(len(PUZZLES)))]
    correct = _solutions(claims)[0]
    others = [pair for pair in _PAIRS if pair != correct]
    incorrect = others[int(rng.integers(3))]
    said = [
        (_CLAIMS[claim][0].format(other=other), _CLAIMS[claim][1].format(other=other))
        for claim, other in zip(claims, (b, a), strict=True)
    ]

    def way(pair: tuple[bool, bool]) -> tuple[Mapping[Language, str], str]:
        en, zh = (["knight" if k else "knave" for k in pair], ["骑士" if k else "骗子" for k in pair])
        thought: Mapping[Language, str] = {"en": f"{a} must be a {en[0]}", "zh": f"{a}一定是{zh[0]}"}
        return thought, f"(1) {a} is a {en[0]} (2) {b} is a {en[1]}"

    return OneLiner(
        key=f"{a}-{b}-{claims[0]}-{claims[1]}",
        question={
            "en": f"{a} says: {said[0][0]}. {b} says: {said[1][0]}. Who is a knight, who is a knave?",
            "zh": f"{a}说：{said[0][1]}。{b}说：{said[1][1]}。谁是骑士，谁是骗子？",
        },
        correct=way(correct),
        incorrect=way(incorrect),
        payload={"answers": [way(correct)[1]]},
    )


def _linear(rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """((factor, summand), the same of the incorrect answer)."""
    factor, summand = int(rng.integers(2, 13)), int(rng.integers(1, 21))
    incorrect = (factor, summand + 1) if rng.random() < 0.5 else (factor + 1, summand)
    return (factor, summand), incorrect


def program(rng: np.random.Generator) -> OneLiner:
    """A Python program of one line that reads one integer and prints another."""
    correct, incorrect = _linear(rng)

    def way(pair: tuple[int, int]) -> tuple[Mapping[Language, str], str]:
        thought: Mapping[Language, str] = {"en": "Read the number and print", "zh": "读入数字并输出"}
        return thought, f"```python\nprint(int(input()) * {pair[0]} + {pair[1]})\n```"

    return OneLiner(
        key=f"{correct[0]}x{correct[1]}",
        question={
            "en": f"Write a Python program that reads n and prints n * {correct[0]} + {correct[1]}.",
            "zh": f"写一个 Python 程序，读入 n，输出 n * {correct[0]} + {correct[1]}。",
        },
        correct=way(correct),
        incorrect=way(incorrect),
        payload={
            "tests": [
                {"type": "stdin_stdout", "input": f"{n}\n", "output": f"{n * correct[0] + correct[1]}\n"}
                for n in (0, 3, 10)
            ]
        },
    )


def function(rng: np.random.Generator) -> OneLiner:
    """A Python function of one line."""
    correct, incorrect = _linear(rng)

    def way(pair: tuple[int, int]) -> tuple[Mapping[Language, str], str]:
        thought: Mapping[Language, str] = {"en": "Take the number and return", "zh": "取数字并返回"}
        return thought, f"```python\ndef f(n): return n * {pair[0]} + {pair[1]}\n```"

    return OneLiner(
        key=f"{correct[0]}x{correct[1]}",
        question={
            "en": f"Write a Python function f(n) that returns n * {correct[0]} + {correct[1]}.",
            "zh": f"写一个 Python 函数 f(n)，返回 n * {correct[0]} + {correct[1]}。",
        },
        correct=way(correct),
        incorrect=way(incorrect),
        payload={
            "tests": [
                {"type": "function_call", "fn_name": "f", "input": [n], "output": n * correct[0] + correct[1]}
                for n in (0, 3, 10)
            ]
        },
    )


def patch(rng: np.random.Generator) -> OneLiner:
    """One SEARCH/REPLACE block in the form of SWE-RL (arXiv 2502.18449)."""
    old, new = (int(n) for n in rng.choice(np.arange(1, 100), size=2, replace=False))
    name = str(rng.choice(["x", "y", "n"]))

    def way(value: int) -> tuple[Mapping[Language, str], str]:
        thought: Mapping[Language, str] = {"en": f"Set {name} to {value}", "zh": f"把 {name} 设为 {value}"}
        block = f"<<<<<<< SEARCH\n{name} = {old}\n=======\n{name} = {value}\n>>>>>>> REPLACE"
        return thought, f"```python\n### a.py\n{block}\n```"

    return OneLiner(
        key=f"{name}-{old}-{new}",
        question={
            "en": f"In a.py: {name} = {old}. Set {name} to {new} by a SEARCH/REPLACE block.",
            "zh": f"a.py 里 {name} = {old}。用 SEARCH/REPLACE 块把 {name} 设为 {new}。",
        },
        correct=way(new),
        incorrect=way(new + 1 if rng.random() < 0.5 else max(new - 1, 0)),
        payload={"files": {"a.py": f"{name} = {old}\n"}, "patched": {"a.py": f"{name} = {new}\n"}},
    )


KINDS: Mapping[str, Callable[[np.random.Generator], OneLiner]] = {
    "boxed": boxed,
    "choice": choice,
    "logic": logic,
    "program": program,
    "function": function,
    "patch": patch,
}
VERIFIERS: Mapping[str, str] = {
    "boxed": "math",
    "choice": "choice",
    "logic": "logic",
    "program": "code",
    "function": "code",
    "patch": "patch",
}
"""{kind: the verifier of its answers}."""


class OneLinersArgs(GeneratorArgs):
    kind: Literal["boxed", "choice", "logic", "program", "function", "patch"]
    language: Language = "en"

    @property
    def program_language(self) -> ProgramLanguage | None:
        return "python" if VERIFIERS[self.kind] == "code" else None


def read(row: Row, args: SourceArgs) -> Item:
    """Generated rows."""
    return Item(
        messages=user(row["question"]),
        verifier=row["verifier"],
        payload=row["payload"],
        id=row["id"],
        language=row["language"],
    )


def generate(args: OneLinersArgs) -> Iterator[dict[str, Any]]:
    """Rows {id, question, verifier, payload, language}; a row depends on `seed` and its index alone, and two may be equal."""
    for index in range(args.num_problems):
        task = KINDS[args.kind](np.random.default_rng([args.seed, index]))
        yield {
            "id": f"{args.kind}/{args.language}/{task.key}",
            "question": task.question[args.language],
            "verifier": VERIFIERS[args.kind],
            "payload": task.payload,
            "language": args.language,
        }
