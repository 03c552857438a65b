"""Knights and knaves (Logic-RL, arXiv 2502.14768): knights always speak the truth, knaves never. The answer names each role.

The difficulty is the number of people. Each person makes one claim, of the kinds in `KINDS`, and exactly one assignment of roles is
consistent with all claims (all assignments are tried).

The split of a puzzle is a hash of its claims alone, independent of names and of the order of speakers. So training and held-out
puzzles are disjoint, whatever the seeds, names and counts.
"""
# ruff: noqa: RUF001  (Chinese punctuation is meant)

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from r1ray.data.base import Item, Row, SourceArgs, Unreadable
from r1ray.data.columns import as_list
from r1ray.data.generators.base import GeneratorArgs, low_and_high
from r1ray.data.schemas import text, user
from r1ray.reward.logic import roles

Split = Literal["train", "test"]
Language = Literal["en", "zh"]
Bools = NDArray[np.bool_]

MIN_PEOPLE, MAX_PEOPLE = 2, 8
PATIENCE = 500
"""Draws without a new puzzle after which a split counts as exhausted."""
TEST_PERCENT = 15
NAMES = (
    *("Ada", "Ann", "Ben", "Bob", "Clara", "Dan", "Ella", "Emil", "Eve", "Finn", "Greta", "Hugo", "Ida", "Ivan", "Jack", "Jane"),
    *("Kurt", "Lena", "Leo", "Lucy", "Max", "Mia", "Nina", "Oscar", "Paul", "Rosa", "Sam", "Tara", "Tom", "Vera", "Yara", "Zoe"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a claim combines one or two statements of the form "Ann is a knight"."""

    text: Mapping[Language, str]
    true: Callable[[Bools, Bools], Bools]
    """Whether the claim is true, given whether its first and its last statement are; one entry per world."""
    num_parts: int = 2
    symmetric: bool = True
    """Whether the order of the statements does not matter."""


KINDS: Mapping[str, Kind] = {
    "is": Kind(text={"en": "{0}", "zh": "{0}"}, true=lambda p, _: p, num_parts=1),
    "not": Kind(text={"en": "it is not true that {0}", "zh": "并非{0}"}, true=lambda p, _: ~p, num_parts=1),
    "and": Kind(text={"en": "{0} and {1}", "zh": "{0}，并且{1}"}, true=lambda p, q: p & q),
    "or": Kind(text={"en": "{0} or {1}", "zh": "{0}，或者{1}"}, true=lambda p, q: p | q),
    "if": Kind(text={"en": "if {0} then {1}", "zh": "如果{0}，那么{1}"}, true=lambda p, q: ~p | q, symmetric=False),
    "iff": Kind(text={"en": "{0} if and only if {1}", "zh": "{0}，当且仅当{1}"}, true=lambda p, q: p == q),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Example: `Claim(kind="or", parts=((0, True), (2, False)))` is "the first is a knight or the third is a knave"."""

    kind: str
    parts: tuple[tuple[int, bool], ...]
    """(person, whether the statement calls that person a knight)."""


class KnightsArgs(GeneratorArgs):
    split: Split
    num_people: list[int] = [3, 7]
    """Given as a number from 2 to 8, or as [lowest, highest]: then every number in between gets the same share, in turn. Logic-RL
    has 3 to 7."""
    language: Language = "en"
    """Language of the puzzle. The answers are always in English, which is what the verifier reads."""

    @field_validator("num_people", mode="before")
    @classmethod
    def _low_and_high(cls, given: Any) -> list[int]:
        return low_and_high("num_people", given, range(MIN_PEOPLE, MAX_PEOPLE + 1))


def read(row: Row, args: SourceArgs) -> Item:
    """Generated puzzles and those of K-and-K/knights-and-knaves (arXiv 2410.23123): a question and "(1) Ann is a knight ...".

    The latter do not say how to answer; use `args.instruction`. Variants with other words for knights and knaves, which the
    verifier does not know, are left out.
    """
    solution, names = text(row["answer"]), as_list(row["names"]) or []
    if not names or set(roles(solution) or ()) != {str(name).lower() for name in names}:
        raise Unreadable(
            f"the answer does not say of each of {names} whether he is a knight or a knave: {solution!r:.200}"
        )
    return Item(
        messages=user(row["question"]),
        verifier="logic",
        payload={"answers": [solution]},
        id=row.get("id"),
        language=row.get("language") or "en",
        meta={"difficulty": len(names)},
    )


def generate(args: KnightsArgs) -> Iterator[dict[str, Any]]:
    """Distinct puzzles of one split: {id, question, answer, names, language}; the answer is "(1) Ann is a knight (2) ...".

    Raises:
        ValueError: the split has fewer puzzles.
    """
    split, (lowest, highest) = args.split, args.num_people
    rng = np.random.default_rng([args.seed, *split.encode()])
    seen: set[str] = set()
    failed = 0
    while len(seen) < args.num_problems:
        size = lowest + len(seen) % (highest - lowest + 1)
        claims = [_claim(rng, speaker, size) for speaker in range(size)]
        names = [str(name) for name in rng.choice(NAMES, size=len(claims), replace=False)]
        worlds = solutions(claims)
        asked = question(claims, names, args.language)
        if len(worlds) != 1 or split_of(claims) != split or asked in seen:
            failed += 1
            if failed > PATIENCE:
                raise ValueError(
                    f"knights and knaves: split {split} has about {len(seen)} puzzles of {size} people, not "
                    f"{args.num_problems}; lower num_problems or raise num_people"
                )
            continue
        failed = 0
        seen.add(asked)
        yield {
            "id": f"knights_and_knaves/{args.language}/{len(names)}-{_digest(asked)}",
            "question": asked,
            "answer": answer(names, worlds[0]),
            "names": names,
            "language": args.language,
        }


def solutions(claims: Sequence[Claim]) -> Bools:
    """Every consistent assignment of knight (True) and knave: a knight's claim is true, a knave's is false. One row per assignment.

    Example: "Bob is a knight" by Ann and "Ann is a knave" by Bob have no solution, and the array has no rows.
    """
    worlds = _worlds(len(claims))
    fits = np.ones(len(worlds), np.bool_)
    for speaker, claim in enumerate(claims):
        statements = [worlds[:, who] == knight for who, knight in claim.parts]
        fits &= KINDS[claim.kind].true(statements[0], statements[-1]) == worlds[:, speaker]
    return worlds[fits]


def split_of(claims: Sequence[Claim]) -> Split:
    """The split, which depends on `structure` alone."""
    return "test" if int(structure(claims), 16) % 100 < TEST_PERCENT else "train"


def structure(claims: Sequence[Claim]) -> str:
    """A digest that does not depend on names and on the order of speakers.

    Colour refinement: people are distinguished by their claims, then by the claims of the people they mention, and so on, once per
    person.
    """
    colours = [""] * len(claims)
    for _ in claims:
        refined: list[str] = []
        for speaker, claim in enumerate(claims):
            parts = [f"{'me' if who == speaker else colours[who]} {knight}" for who, knight in claim.parts]
            refined.append(_digest(f"{claim.kind} {sorted(parts) if KINDS[claim.kind].symmetric else parts}"))
        colours = refined
    return _digest(" ".join(sorted(colours)))


def question(claims: Sequence[Claim], names: Sequence[str], language: Language) -> str:
    """The prompt: the rules, what each person says, and how to answer."""
    said = [_said(claim, names, language) for claim in claims]
    if language == "zh":
        spoken = "".join(f"{name}说：{text}。" for name, text in zip(names, said, strict=True))
        return (
            f"岛上的每个人不是骑士就是骗子。骑士只说真话，骗子只说假话。你遇到了{len(names)}个人。{spoken}谁是骑士，谁是骗子？"
            "按顺序写出每个人，格式为：(1) NAME is a knight (2) NAME is a knave"
        )
    spoken = " ".join(f"{name} says: {text}." for name, text in zip(names, said, strict=True))
    return (
        "Everybody on an island is either a knight or a knave. Knights only say what is true, knaves only what is false. You meet "
        f"{len(names)} of them. {spoken} Who is a knight and who is a knave? Name everybody, in this order and like this: "
        "(1) NAME is a knight (2) NAME is a knave"
    )


def answer(names: Sequence[str], knights: Sequence[bool] | Bools) -> str:
    """Example: `answer(["Ann", "Bob"], [True, False])` is "(1) Ann is a knight (2) Bob is a knave"."""
    roles = ["knight" if knight else "knave" for knight in knights]
    return " ".join(f"({n}) {name} is a {role}" for n, (name, role) in enumerate(zip(names, roles, strict=True), 1))


def _claim(rng: np.random.Generator, speaker: int, size: int) -> Claim:
    """A claim about two people, possibly including the speaker, or about one other person: "I am a knight" has no information."""
    kind = str(rng.choice(list(KINDS)))
    num_parts = KINDS[kind].num_parts
    about = [who for who in range(size) if num_parts == 2 or who != speaker]
    chosen = rng.choice(about, size=num_parts, replace=False)
    return Claim(kind=kind, parts=tuple((int(who), bool(rng.integers(2))) for who in chosen))


def _said(claim: Claim, names: Sequence[str], language: Language) -> str:
    def statement(who: int, knight: bool) -> str:
        if language == "zh":
            return f"{names[who]}是{'骑士' if knight else '骗子'}"
        return f"{names[who]} is a {'knight' if knight else 'knave'}"

    return KINDS[claim.kind].text[language].format(*(statement(who, knight) for who, knight in claim.parts))


@cache
def _worlds(num_people: int) -> Bools:
    return np.array(list(product((True, False), repeat=num_people)))


def _digest(content: str) -> str:
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
