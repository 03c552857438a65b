"""RL-Poet as a plug-in: a dataset, its verifier and its reward in one file, as in a package of your own.

    data.train.poems.source=r1ray.examples.poems:POEMS        problems: a form and a topic
    reward.components.form.name=r1ray.examples.poems:form     the share of the rules of its form that a poem keeps

Its verifier `VERSE` accepts only a poem that keeps all of them.

`recipe=rl_poet` combines them. A survey of 2025 names RL-Poet as reinforcement learning with rewards for form. Its rules, data and
numbers are not known to us: these are our own, and simple. Syllables and rhymes are estimated from English spelling: "every" has
three, "eye" does not rhyme with "high".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from r1ray.data.base import Item, Row, Source
from r1ray.data.generators.base import GeneratorArgs
from r1ray.data.schemas import user
from r1ray.plugin import invalid
from r1ray.reward.accuracy import Verifier, in_text
from r1ray.reward.base import ComponentScore, correct_or_incorrect, per_completion
from r1ray.reward.text import after_thinking, last_answer
from r1ray.types import Problem

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]")
VOWELS = re.compile(r"[aeiouy]+")
SILENT = re.compile(r"(?<![td])ed$|(?<![sxzcg])(?<!ch|sh)es$|(?<!l)e$|(?<=[aeiouy]l)e$")
"""Endings that are no syllable: moved, times, rhyme, whole; but not: added, roses, little."""
MAX_LENGTH = 2000
"""Characters of a poem that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Syllables of each line, and which lines rhyme: those with the same letter."""

    syllables: tuple[int, ...]
    rhymes: str = ""


FORMS: Mapping[str, Form] = {
    "line": Form(syllables=(2,)),  # for the built-in model, which writes little
    "haiku": Form(syllables=(5, 7, 5)),
    "couplet": Form(syllables=(8, 8), rhymes="AA"),
    "quatrain": Form(syllables=(8, 6, 8, 6), rhymes="ABAB"),
    "limerick": Form(syllables=(8, 8, 5, 5, 8), rhymes="AABBA"),
}
TOPICS = (
    *(
        "rain",
        "snow",
        "wind",
        "fire",
        "moon",
        "stars",
        "sea",
        "river",
        "forest",
        "mountain",
        "desert",
        "garden",
        "spring",
    ),
    *("summer", "autumn", "winter", "morning", "evening", "night", "time", "sleep", "hope", "home", "bread", "music"),
)
SETTINGS = (
    *("at dawn", "by night", "in an old town", "on a long road", "seen from a train", "for a child", "after a storm"),
    *("without a word of sorrow", "as a friend would tell it", "a hundred years ago"),
)


def syllables(line: str) -> int:
    """One for each group of vowels and for each digit. Example: `syllables("the little roses moved 2 times")` is 8."""
    return sum(1 if word.isdigit() else _syllables_of(word) for word in WORD.findall(line.lower()))


def _syllables_of(word: str) -> int:
    return max(1, len(VOWELS.findall(SILENT.sub("", word))))


def rhyme(one: str, other: str) -> bool:
    """Whether two lines end in different words that are equal from the vowel of the last syllable on.

    Example: "a bright light" rhymes with "the long night", and not with another "light".
    """
    last = [words[-1] if (words := WORD.findall(line.lower())) else "" for line in (one, other)]
    ends = [_end_of(word) for word in last]
    return last[0] != last[1] and ends[0] == ends[1] != ""


def _end_of(word: str) -> str:
    spoken = SILENT.sub("", word)
    vowels = list(VOWELS.finditer(spoken))
    return word[vowels[-1].start() :].replace("y", "i") if vowels else ""


def share_met(poem: str, *, form: Form, topic: str) -> float:
    """The share of the rules that a poem keeps: the number of lines, the syllables of each line, each rhyme, and the topic's name.

    0 for a poem that repeats a line. Example: "Rain falls on the roof" as a haiku about rain keeps 2 of 5, the first line and the
    topic.
    """
    lines = [line.strip() for line in poem[:MAX_LENGTH].lower().splitlines() if WORD.search(line.lower())]
    if not lines or len(set(lines)) < len(lines):
        return 0.0
    met = [len(lines) == len(form.syllables), topic in WORD.findall(" ".join(lines))]
    met += [n < len(lines) and syllables(lines[n]) == wanted for n, wanted in enumerate(form.syllables)]
    for second, letter in enumerate(form.rhymes):
        first = form.rhymes.index(letter)
        if first < second:
            met.append(second < len(lines) and rhyme(lines[first], lines[second]))
    return sum(met) / len(met)


def poem_in(text: str) -> str | None:
    """The answer of a completion, or the text after its thinking."""
    answer = last_answer(text)
    found = after_thinking(text).strip() if answer is None else answer
    return found or None


def _share(problem: Problem, poem: str) -> float:
    return share_met(poem, form=FORMS[problem.payload["form"]], topic=problem.payload["topic"])


VERSE = Verifier(
    answer=in_text(poem_in), verify=lambda problem, poem: correct_or_incorrect(_share(problem, poem) == 1.0)
)
"""A poem is correct when it keeps all the rules."""


@per_completion
def form(problem: Problem, text: str) -> ComponentScore:
    """Between 0 and 1: the share of the rules that the poem keeps; None for a problem that asks for no poem."""
    if problem.payload.get("form") not in FORMS:
        return ComponentScore(value=None)
    poem = poem_in(text)
    value = 0.0 if poem is None else _share(problem, poem)
    return ComponentScore(value=value, status="ok" if value == 1.0 else "wrong_answer")


def question(name: str, topic: str, setting: str) -> str:
    wanted = FORMS[name]
    counts = ", ".join(map(str, wanted.syllables))
    rhymes = f" It rhymes {wanted.rhymes}." if wanted.rhymes else ""
    return (
        f"Write a {name} about {topic} {setting}, and name {topic} in it. Syllables in each line: {counts}.{rhymes} "
        "Write only the poem."
    )


class PoemsArgs(GeneratorArgs):
    forms: list[str] = ["haiku", "couplet"]
    topics: list[str] = list(TOPICS)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if unknown := [form for form in self.forms if form not in FORMS]:
            raise invalid("forms", f"there is no form {', '.join(unknown)}", f"known forms: {', '.join(FORMS)}")
        size = len(self.forms) * len(self.topics) * len(SETTINGS)
        if self.num_problems > size:
            raise invalid(
                "num_problems", f"there are {size} poems to write", "lower num_problems, or give more forms or topics"
            )
        return self


def generate(args: PoemsArgs) -> Iterator[dict[str, Any]]:
    """Different problems in an order that the seed decides: {form, topic, setting}."""
    every = list(product(args.forms, args.topics, SETTINGS))
    for index in np.random.default_rng(args.seed).permutation(len(every))[: args.num_problems]:
        name, topic, setting = every[index]
        yield {"form": name, "topic": topic, "setting": setting}


def read(row: Row, args: PoemsArgs) -> Item:
    return Item(
        messages=user(question(row["form"], row["topic"], row["setting"])),
        verifier=f"{__name__}:VERSE",
        payload={"form": row["form"], "topic": row["topic"]},
    )


POEMS = Source(
    read=read, Args=PoemsArgs, columns={name: name for name in ("form", "topic", "setting")}, generate=generate
)
