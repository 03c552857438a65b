"""Readers of known datasets: one small function per schema, from a row under our column names to an Item.

A reader raises Unreadable for a row that lacks what is needed to score a completion; such rows are dropped and counted. Gold
answers only get the cheap, safe check: no maths parser runs while data is loaded.
"""

import hashlib
import json
import math
from typing import Any

from r1ray.data.base import Item, Row, SourceArgs, Unreadable
from r1ray.data.columns import as_list, as_object
from r1ray.data.placeholders import is_placeholder
from r1ray.reward.math.compare import readable
from r1ray.reward.math.extract import last_boxed
from r1ray.types import Message

ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


def numbers_and_target(row: Row) -> tuple[list[int], int]:
    try:
        numbers, target = [_whole(number) for number in as_list(row["numbers"]) or []], _whole(row["target"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Unreadable(f"numbers and target must be whole numbers ({type(error).__name__}: {error})") from error
    if not numbers:
        raise Unreadable("there is no list of numbers")
    return numbers, target


def _whole(value: Any) -> int:
    if int(value) != float(value):
        raise ValueError(f"{value} is not a whole number")
    return int(value)


def gsm8k(row: Row, args: SourceArgs) -> Item:
    """openai/gsm8k: the gold answer follows `####` in the worked answer."""
    _, mark, gold = text(row["answer"]).rpartition("####")
    if not mark:
        raise Unreadable("the answer has no '####' before its result")
    return Item(messages=user(row["question"]), payload=golds([gold.strip().replace(",", "")]))


def math_solution(row: Row, args: SourceArgs) -> Item:
    """Hendrycks MATH: the gold answer is the last box of the solution; the level ("Level 3") goes into `meta`."""
    gold = last_boxed(text(row["solution"]))
    if gold is None:
        raise Unreadable("the solution has no closed \\boxed{}")
    level = row.get("level")
    meta = {} if level is None else {"level": level}
    return Item(messages=user(row["problem"]), payload=golds([gold]), meta=meta)


def problem_answer(row: Row, args: SourceArgs) -> Item:
    """DeepScaleR, MATH-500, AIME, OpenR1-Math-220k, Big-Math: a problem and its bare answer."""
    return Item(messages=user(row["problem"]), payload=golds(row["answer"]))


def verl(row: Row, args: SourceArgs) -> Item:
    """verl's format (DAPO-Math-17k, Skywork-OR1 maths, ...): chat messages and a ground truth.

    Skywork writes the ground truth as a JSON list of accepted answers in a string.
    """
    return Item(messages=conversation(row["prompt"]), payload=golds(row["answer"]))


def orz(row: Row, args: SourceArgs) -> Item:
    """Open-Reasoner-Zero: a row is a list of a human turn and an assistant turn, whose `ground_truth.value` is the answer."""
    return Item(messages=user(row["question"]), payload=golds(row["answer"]))


def multiple_choice(row: Row, args: SourceArgs) -> Item:
    """A question, its options and the correct one: a letter, or its index from 0. SuperGPQA (arXiv 2502.14739) has 4 to 10 options.

    Example: options ["1", "2"] and answer "B" ask for "2", listed below the question as `B) 2`.
    """
    options, correct = as_list(row["options"]) or [], row["answer"]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)]
    if isinstance(correct, int) and not isinstance(correct, bool):
        letter = letters[correct : correct + 1] if correct >= 0 else ""
    else:
        letter = str(correct).strip().upper()
    if len(options) < 2 or letter not in tuple(letters):
        raise Unreadable(f"expected a letter or an index of {len(options)} options, found {correct!r:.60}")
    lines = "\n".join(f"{label}) {text(option)}" for label, option in zip(letters, options, strict=True))
    return Item(
        messages=user(f"{text(row['question'])}\n\n{lines}"),
        verifier="choice",
        payload={"answers": [letter]},
        id=row.get("id"),
    )


def gpqa(row: Row, args: SourceArgs) -> Item:
    """GPQA (arXiv 2311.12022): one column for the correct answer and three for incorrect ones.

    The order of the options depends on the row's id alone, or on its question where it has none: the same in every run.
    """
    name = str(row.get("id") or row["question"])
    incorrect = [text(row[f"incorrect_{number}"]).strip() for number in (1, 2, 3)]
    correct = text(row["correct"]).strip()
    if correct in incorrect:
        raise Unreadable(f"the correct answer {correct!r:.60} is an incorrect one too")
    options = sorted([correct, *incorrect], key=lambda option: hashlib.sha256(f"{name}\n{option}".encode()).digest())
    question = {"id": row.get("id"), "question": row["question"]}
    return multiple_choice({**question, "options": options, "answer": options.index(correct)}, args)


def sft(row: Row, args: SourceArgs) -> Item:
    """Chat messages whose last one, by the assistant, is the response; with a `response` column all messages are the prompt, which
    may also be a text in a column `prompt`.

    Reads {role, content} and ShareGPT's {from, value}.
    """
    if row.get("messages") is None and row.get("prompt") is None:
        raise Unreadable("it has neither a column 'messages' nor 'prompt'")
    turns = conversation(row["prompt"] if row.get("messages") is None else row["messages"])
    if row.get("response") is not None:
        return Item(messages=turns, verifier="", response=text(row["response"]))
    if turns[-1].role != "assistant" or len(turns) < 2:
        raise Unreadable("the last message is not the assistant's")
    return Item(messages=turns[:-1], verifier="", response=turns[-1].content)


def user(question: Any) -> tuple[Message, ...]:
    return (Message(role="user", content=text(question)),)


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unreadable(f"expected some text, found {value!r:.60}")
    return value


def conversation(value: Any) -> tuple[Message, ...]:
    """A text, or a list of {role, content} or {from, value}."""
    if isinstance(value, str):
        return user(value)
    turns = as_list(value)
    if not turns:
        raise Unreadable(f"expected a text or a list of messages, found {value!r:.60}")
    messages: list[Message] = []
    for turn in turns:
        fields = as_object(turn) or {}
        role = fields.get("role", fields.get("from"))
        if role not in ROLES:
            raise Unreadable(f"expected messages with a role of {sorted(set(ROLES.values()))}, found {turn!r:.60}")
        messages.append(Message(role=ROLES[role], content=text(fields.get("content", fields.get("value")))))  # type: ignore[arg-type]
    return tuple(messages)


def golds(value: Any) -> dict[str, Any]:
    """The payload for math: {"answers": [...]}, from a text, a number, a list, or a list of texts written as JSON."""
    answers = listed(_json(value) if isinstance(value, str) else value)
    usable = [answer for answer in answers if readable(answer) and not is_placeholder(answer)]
    if not usable:
        if absent := next(filter(is_placeholder, answers), None):
            raise Unreadable(f"the gold {absent!r:.60} is no answer")
        raise Unreadable(f"there is no usable answer in {value!r:.60}")
    return {"answers": usable}


def listed(value: Any) -> list[str]:
    """The answers in a text, a number or a list of them; empty ones and other types are left out.

    Example: `listed(["B", 4, None])` is ["B", "4"].
    """
    several = as_list(value)
    answers = [
        _printed(answer)
        for answer in ([value] if several is None else several)
        if isinstance(answer, str | int | float) and not isinstance(answer, bool)
    ]
    return [answer for answer in answers if answer]


def _printed(answer: str | int | float) -> str:
    """As text; infinity, which JSON files may have as a number, in LaTeX, and "" for a number that is none."""
    if isinstance(answer, float) and not math.isfinite(answer):
        return "" if math.isnan(answer) else r"\infty" if answer > 0 else r"-\infty"
    return str(answer).strip()


def _json(value: str) -> Any:
    """A JSON list of strings: its items. A JSON object (the tests of a program): {}. Anything else: the text itself, because
    "[0, 1]" is an interval and no list of answers."""
    if not value.lstrip().startswith(("[", "{")):
        return value
    try:
        parsed: Any = json.loads(value)
    except ValueError:
        return value
    if as_object(parsed) is not None:
        return {}
    parts = as_list(parsed)
    return parts if parts is not None and all(isinstance(part, str) for part in parts) else value
