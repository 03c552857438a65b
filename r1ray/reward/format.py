"""Format rewards: reasoning in think tags, then the answer in answer tags (R1-Zero, arXiv 2501.12948, 2.2.2), and its relatives.

    format        every tag once, in order, some reasoning, nothing else
    format_soft   the same, with any text around and between the two blocks
    think_format  reasoning in one pair of think tags and something after it, as R1 and the distilled models answer
    tag_count     a quarter for each tag on its own line, so layouts with some of the tags earn a part (Open-R1)
    code_format   as format, and the answer has a fenced program in the problem's language (Open-R1)

`format` is stricter than the public regular expressions, which accept a doubled `<think>` and text after `</answer>`.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from r1ray.mistakes import Finding, Mistake
from r1ray.plugin import Args, arguments
from r1ray.reward.base import ComponentScore, per_completion
from r1ray.reward.code.cases import read_language
from r1ray.reward.code.extract import last_program
from r1ray.reward.text import last_answer
from r1ray.types import Problem

if TYPE_CHECKING:
    from r1ray.config.view import StageView

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
LAYOUT = re.compile(r"\s*<think>(.*)</think>\s*<answer>.*</answer>\s*", re.DOTALL)
SOFT_LAYOUT = re.compile(r".*<think>(.*)</think>.*<answer>.*</answer>.*", re.DOTALL)
THINK_LAYOUT = re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)
COUNTED = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")


class FormatArgs(Args):
    """No arguments, but a check: the prompt must ask for the tags."""

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        component = key.removesuffix(".args")
        if owner.has_weight and "<think>" not in view.template_text:
            rule = f"{component} asks for <think> and <answer> tags, and this template never mentions them"
            remedy = f"model.template=r1_zero, or {component}.weight=0"
            yield Mistake(key="model.template", value=view.model.template, rule=rule, remedy=remedy)


@per_completion
@arguments(FormatArgs)
def format_reward(problem: Problem, text: str, args: FormatArgs) -> ComponentScore:
    """1 if every tag occurs exactly once, in order, with some reasoning and only white space around the two blocks; else 0."""
    return _all_or_nothing(_fits(LAYOUT, text, once=TAGS))


@per_completion
def format_soft(problem: Problem, text: str) -> ComponentScore:
    """1 if every tag occurs exactly once, in order, with some reasoning; else 0."""
    return _all_or_nothing(fits_soft(text))


@per_completion
def think_format(problem: Problem, text: str) -> ComponentScore:
    """1 if the completion begins with reasoning in one pair of think tags and has text after it; else 0."""
    return _all_or_nothing(_fits(THINK_LAYOUT, text, once=TAGS[:2]))


@per_completion
def tag_count(problem: Problem, text: str) -> ComponentScore:
    """0.25 for each of the four tags that occurs exactly once, with the line breaks of Open-R1's format around it."""
    return ComponentScore(value=sum(text.count(tag) == 1 for tag in COUNTED) / len(COUNTED))


@per_completion
def code_format(problem: Problem, text: str) -> ComponentScore:
    """1 if `format` gives 1 and the answer holds a fenced program that names the problem's language; else 0."""
    language = read_language(problem.payload.get("language"))
    fenced = last_program(last_answer(text) or "", language, must_name=True) is not None
    return _all_or_nothing(fenced and _fits(LAYOUT, text, once=TAGS))


def fits_soft(text: str) -> bool:
    """Whether the text has both blocks, each tag once, in order."""
    return _fits(SOFT_LAYOUT, text, once=TAGS)


def _fits(layout: re.Pattern[str], text: str, *, once: tuple[str, ...]) -> bool:
    """Whether the layout matches and each of its groups has more than white space. Tags are counted first, because a pattern with
    each tag once takes linear time."""
    match = layout.fullmatch(text) if all(text.count(tag) == 1 for tag in once) else None
    return match is not None and all(part.strip() for part in match.groups())


def _all_or_nothing(good: bool) -> ComponentScore:
    return ComponentScore(value=float(good), status="ok" if good else "wrong_answer")
