"""The forms of a reward function: r1ray's, lifted ones, TRL's; others are refused by the check with the list of forms."""

import re
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reward_samples import completion, context, problem

from r1ray import reward
from r1ray.check import CheckedRun, ConfigError, load
from r1ray.cli import compose
from r1ray.plugin import Args, arguments
from r1ray.reward.base import ComponentScore, per_completion, per_group
from r1ray.reward.compose import Component, Scorer
from r1ray.reward.forms import as_reward
from r1ray.reward.trl import TrlReward
from r1ray.types import Message

TEXTS = ("short", "x" * 30)


def values(function: Callable[..., Any], **changes: Any) -> list[float | None]:
    """The values of a function of any form for two completions."""
    scorer = Scorer([Component(name="mine", weight=1.0, reward=as_reward(function))], truncated="score")
    scores = scorer.score(problem(**changes), [completion(text) for text in TEXTS], context())
    assert all(not score.errors for score in scores), scores[0].errors
    return [score.components["mine"] for score in scores]


def by_length(completions: list[str], **kwargs: Any) -> list[float]:
    return [float(len(completion)) for completion in completions]


def of_chats(completions: list[list[dict[str, str]]], **kwargs: Any) -> list[float]:
    assert all(completion[0]["role"] == "assistant" for completion in completions)
    return [float(len(completion[0]["content"])) for completion in completions]


def last_turns(prompts: Any, completions: Any, **_: Any) -> list[float]:
    assert prompts[0][-1]["content"] == "?" and prompts[0] == "?"
    return [float(len(turn[-1].get("content"))) for turn in completions]


def by_pattern(completions: Any, **kwargs: Any) -> list[float]:
    return [float(len(re.findall(r"\w", text))) for text in completions]


def answered(completions: Any, answer: list[str]) -> list[float]:
    assert answer == ["1", "1"]
    return [float(len(text)) for text in completions]


def with_column(prompts: Any, completions: Any, difficulty: Any, **kwargs: Any) -> Any:
    assert difficulty == [3, 3] and kwargs["answers"] == [["1"], ["1"]]
    return np.array([len(text) for text in completions], np.float32)


def by_ids(completions: Any, completion_ids: Any) -> Any:
    assert completion_ids == [[1], [1]]
    return (len(text) for text in completions)


def only_named(*, completions: Any) -> Any:
    return [len(text) for text in completions]


def all_by_keyword(**kwargs: Any) -> Any:
    return [len(text) for text in kwargs["completions"]]


class Lengths:
    def __call__(self, completions: Any, **kwargs: Any) -> Any:
        return by_length(completions)


class Stats:
    def method(self, prompts: Any, completions: Any) -> Any:
        return by_length(completions)


def problem_as_column(problem: Any, completions: Any, **kwargs: Any) -> Any:
    assert problem == ["p?", "p?"]
    return by_length(completions)


@wraps(by_length)
def logged(*args: Any, **kwargs: Any) -> Any:
    return by_length(*args, **kwargs)


TRL = [
    *(by_length, of_chats, last_turns, by_pattern, answered, with_column, by_ids, only_named, all_by_keyword, logged),
    *(Lengths(), Stats().method, problem_as_column, partial(with_column)),
    lambda completions, **columns: by_length(completions),
    lambda completions: by_length(completions),
]


@pytest.mark.parametrize("function", TRL)
def test_a_function_of_trls_form_scores(function: Callable[..., Any]) -> None:
    assert isinstance(as_reward(function), TrlReward)
    assert values(function, meta={"difficulty": 3, "problem": "p?"}) == [5.0, 30.0]


def test_none_means_that_it_does_not_apply() -> None:
    assert values(lambda completions, **kwargs: [None] * len(completions)) == [None, None]
    assert values(lambda completions, **kwargs: [None, 1]) == [None, 1.0]


def test_the_prefill_belongs_to_the_completion() -> None:
    assert values(by_length, prefill="<think>") == [12.0, 37.0]


def test_a_chat_is_its_text_and_its_messages() -> None:
    seen: dict[str, Any] = {}

    def look(prompts: Any, completions: Any) -> list[float]:
        seen.update(prompt=prompts[0], completion=completions[0], empty=completions[1])
        return [0.0, 0.0]

    turns = (Message(role="system", content="Be brief."), Message(role="user", content="2 + 2?"))
    as_reward(look)(problem(messages=turns), [completion("It is 4."), completion("")], context())
    prompt, text = seen["prompt"], seen["completion"]
    assert prompt == "Be brief.\n\n2 + 2?" and [prompt[0]["role"], prompt[-1]["role"]] == ["system", "user"]
    assert text == "It is 4." and text[0] == "I" and text[3:] == "is 4." and text[1] == "t" and text.split()[-1] == "4."
    assert text[0]["content"] == text[-1]["content"] == "It is 4." and text[-1] == "."
    assert seen["empty"] == "" and seen["empty"][0]["content"] == ""
    with pytest.raises(IndexError):
        text[8]


def test_columns_are_copies_of_one_value_and_never_the_completions() -> None:
    def look(completions: Any, prompts: Any, **columns: Any) -> list[float]:
        assert completions == list(TEXTS) and prompts == ["?", "?"]
        assert columns["answer"] == ["own", "own"] and columns["level"] == [5, 5]
        return [0.0] * len(completions)

    values(look, meta={"answer": "own", "level": 5, "completions": "column", "prompts": 1})


@per_completion
def lifted(problem: Any, text: str) -> ComponentScore:
    return ComponentScore(value=float(len(text)))


@per_group
def lifted_group(problem: Any, texts_G: Any) -> Any:
    return [ComponentScore(value=float(len(text))) for text in texts_G]


def plain(problem: Any, completions_G: Any, context: Any) -> list[float]:
    return [float(len(one.text)) for one in completions_G]


def defaults(problem: Any, completions: Any, context: Any, scale: float = 1.0, **kwargs: Any) -> list[float]:
    return [scale * value for value in plain(problem, completions, context)]


def any_arguments(*args: Any) -> list[float]:
    return plain(*args)


@pytest.mark.parametrize(
    "function", [lifted, lifted_group, plain, defaults, partial(defaults, scale=1.0), any_arguments]
)
def test_r1rays_forms_stay_what_they_are(function: Callable[..., Any]) -> None:
    assert as_reward(function) is function
    assert values(function) == [5.0, 30.0]


def test_every_reward_of_r1ray_has_an_accepted_form() -> None:
    for name, known in reward.REWARDS.items():
        assert as_reward(known) is known, name


class Declared(Args):
    scale: float = 1.0


@arguments(Declared)
def declared(problem: Any, completions_G: Any, context: Any, args: Declared) -> Any: ...


@arguments(Declared)
def declares_and_takes_none(problem: Any, completions_G: Any, context: Any) -> Any: ...


def verl(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float: ...
def openrlhf(queries: Any, prompts: Any, labels: Any) -> Any: ...
def of_text(text: str) -> float: ...
def unlifted(problem: Any, text: str) -> float: ...
def of_one(completion: Any, answer: Any) -> float: ...
def of_three(completion: Any, answer: Any, context: Any) -> float: ...
def nothing() -> float: ...
def takes_too_many(problem: Any, completions_G: Any, context: Any, scale: float) -> Any: ...
def positional(completions: Any, /, **columns: Any) -> Any: ...
async def awaited(completions: Any, **columns: Any) -> Any: ...


OTHERS = {
    "verl": "solution_str",
    "openrlhf": "queries",
    "of_text": "(text: str)",
    "unlifted": "(problem: Any, text: str)",
    "of_one": "completion",
    "of_three": "completion",
    "nothing": "()",
    "takes_too_many": "scale",
    "positional": "completions",
    "awaited": "async",
    "Lengths": "is the class Lengths",
    "declares_and_takes_none": "context",
}


def checked(name: str, *overrides: str) -> CheckedRun:
    return load(compose([f"reward.components.mine={{name: '{__name__}:{name}'}}", *overrides]))


@pytest.mark.parametrize("name", OTHERS)
def test_a_function_of_another_form_is_refused_once_by_the_check(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        checked(name)
    (mistake,) = error.value.mistakes
    assert mistake.key == "reward.components.mine.name" and OTHERS[name] in mistake.rule
    for form in ("f(problem, completions_G, context)", "per_completion", "f(completions, **columns)"):
        assert form in mistake.remedy


@pytest.mark.parametrize("name", ["by_length", "of_chats", "plain", "declared", "lifted"])
def test_accepted_forms_pass_the_check(name: str) -> None:
    assert checked(name).stages


def needs_solution(completions: Any, solution: Any, **kwargs: Any) -> list[float]: ...
def takes_solution(completions: Any, solution: Any = None) -> list[float]: ...
def needs_target(completions: Any, target: Any, numbers: Any) -> list[float]: ...


def test_a_column_that_the_data_has_not_is_found_by_the_check() -> None:
    with pytest.raises(ConfigError) as error:
        checked("needs_solution")
    rules = [mistake.rule for mistake in error.value.mistakes]
    assert (
        len(rules) == 1
        and "countdown's problems: it takes solution, and the columns are prompts, completions" in rules[0]
    )
    assert "numbers, target" in rules[0]
    assert checked("takes_solution").stages and checked("needs_target").stages


def test_a_column_of_a_table_may_be_named(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "1 + 1?", "answer": "2", "solution": "1 + 1 = 2"}\n' * 3)
    named = f"data.train={{countdown: null, mine: {{source: rows, path: {rows}}}}}"
    only = "reward.components.mine.sources=[mine]"
    assert checked("needs_solution", named, only).stages
    with pytest.raises(ConfigError, match="it takes target, numbers"):
        checked("needs_target", named, only)


def test_a_reward_of_another_form_is_refused_where_no_check_ran() -> None:
    from test_compose import config

    with pytest.raises(ValueError, match=r"reward.components.mine: .*verl has the parameters .*per_completion"):
        reward.make(config({"mine": {"name": f"{__name__}:verl"}}))
