"""Reward functions in TRL's form, as `GRPOTrainer(reward_funcs=...)` takes them: f(completions, **columns), called with keywords.

It gets lists of G: `completions`, `prompts`, `completion_ids` (token ids), and a column for every field of the problem's payload
and meta: the columns of a table (`source: rows`) under their names, and `answer`, the first reference answer. A function without
**columns gets those that it names. It returns G numbers; None where it does not apply.

TRL gives text for a dataset of texts and lists of messages for one of chats. A function that reads either works here without a
change: a completion is a text whose items are messages, so that `completion[0]["content"]` is the text too.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from r1ray.reward.base import RewardContext, response_text
from r1ray.types import Completion, Message, Problem

LISTS = ("prompts", "completions", "completion_ids")


class HasColumns(Protocol):
    """A Problem, or the Item from which one is made."""

    @property
    def messages(self) -> tuple[Message, ...]: ...
    @property
    def payload(self) -> Mapping[str, Any]: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...


class Chat(str):
    """A text that is also a list of messages: `chat[-1]["content"]`. A slice is one of the text."""

    __slots__ = ("_messages",)
    _messages: list[dict[str, str]]

    @classmethod
    def of(cls, messages: Sequence[Message]) -> "Chat":
        chat = cls("\n\n".join(message.content for message in messages))
        chat._messages = [{"role": message.role, "content": message.content} for message in messages]
        return chat

    def __getitem__(self, key: Any) -> str:
        if not isinstance(key, int) or not -len(self._messages) <= key < len(self._messages):
            return super().__getitem__(key)
        turn = Turn(super().__getitem__(slice(key, key + 1 or None)))
        turn.message = self._messages[key]
        return turn


class Turn(str):
    """One character of a Chat that is also a message: `turn["content"]`, `turn.get("role")`."""

    __slots__ = ("message",)
    message: dict[str, str]

    def __getitem__(self, key: Any) -> str:
        return self.message[key] if isinstance(key, str) else super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self.message.get(key, default)


class TrlReward:
    """Calls a function of TRL's form as one of r1ray's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        parameters = inspect.signature(function).parameters.values()
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        self._names = {p.name for p in named} if len(named) == len(parameters) else None
        """The columns that it takes; None: all."""
        self._required = [p.name for p in named if p.default is p.empty and p.name not in LISTS]
        self.reads_tokens = "completion_ids" in {p.name for p in named}

    def __call__(self, problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> Any:
        texts_G = [response_text(problem, completion) for completion in completions_G]
        columns: dict[str, Any] = {name: [value] * len(texts_G) for name, value in columns_of(problem).items()}
        columns |= {
            "prompts": [Chat.of(problem.messages)] * len(texts_G),
            "completions": [Chat.of([Message(role="assistant", content=text)]) for text in texts_G],
            "completion_ids": [completion.token_ids_T.tolist() for completion in completions_G],
        }
        taken = columns.keys() if self._names is None else columns.keys() & self._names
        return self.__wrapped__(**{name: columns[name] for name in taken})

    def cannot_score(self, row: HasColumns) -> tuple[str, str] | None:
        """(reason, remedy) when the problem has no column for a parameter."""
        columns = columns_of(row)
        missing = ", ".join(name for name in self._required if name not in columns)
        if not missing:
            return None
        known = ", ".join((*LISTS, *sorted(columns)))
        return (
            f"it takes {missing}, and the columns are {known}",
            f"use one of those names, give the parameter a default, or take the column from the data: "
            f"columns: {{{missing.partition(',')[0]}: ITS NAME IN THE DATA}} of the source",
        )


def columns_of(row: HasColumns) -> dict[str, Any]:
    """{column: value} of one problem."""
    answers: Any = row.payload.get("answers")
    first: dict[str, Any] = {"answer": answers[0]} if isinstance(answers, list | tuple) and answers else {}
    return {**first, **row.meta, **row.payload}
