"""Rewards by name. To add one: write `reward(problem, completions_G, context, **args)` in its own file and name it in REWARDS, or
leave it in your own package and use `package.module:function` as its name."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args, get_origin

from r1ray.config import RewardConfig
from r1ray.plugin import resolve
from r1ray.reward.accuracy import accuracy
from r1ray.reward.answered import answered
from r1ray.reward.code.codeforces import codeforces
from r1ray.reward.code.difficulty import by_difficulty
from r1ray.reward.code.fraction import code_fraction
from r1ray.reward.code.ioi import ioi
from r1ray.reward.compose import Component, Scorer
from r1ray.reward.cosine import cosine
from r1ray.reward.format import code_format, format_reward, format_soft, tag_count, think_format
from r1ray.reward.judge import judge
from r1ray.reward.language import language
from r1ray.reward.length import length
from r1ray.reward.logic import logic_rl
from r1ray.reward.mixed import mixed
from r1ray.reward.overlong import overlong
from r1ray.reward.repetition import repetition
from r1ray.reward.steps import reasoning_steps
from r1ray.reward.swe import patch_similarity

REWARDS: Mapping[str, Callable[..., Any]] = {
    "accuracy": accuracy,
    "answered": answered,
    "code_format": code_format,
    "code_fraction": code_fraction,
    "codeforces": codeforces,
    "cosine": cosine,
    "format": format_reward,
    "format_soft": format_soft,
    "ioi": ioi,
    "judge": judge,
    "language": language,
    "length": length,
    "logic_rl": logic_rl,
    "mixed": mixed,
    "overlong": overlong,
    "patch_similarity": patch_similarity,
    "reasoning_steps": reasoning_steps,
    "repetition": repetition,
    "tag_count": tag_count,
    "test_difficulty": by_difficulty,
    "think_format": think_format,
}

OF_TEXT = {
    *("accuracy", "format", "format_soft", "language", "logic_rl", "patch_similarity", "reasoning_steps", "tag_count"),
    *(
        "think_format",
        "judge",
        "code_fraction",
        "codeforces",
        "ioi",
        "test_difficulty",
        "answered",
        "code_format",
        "mixed",
    ),
}
"""Rewards that read nothing of a completion but its text."""


def reads_tokens(cfg: RewardConfig) -> bool:
    """Whether a component may look at the tokens of a response."""
    return any((component.name or name) not in OF_TEXT for name, component in cfg.components.items())


def make(cfg: RewardConfig) -> Scorer:
    """The scorer that the configuration describes.

    Raises:
        ValueError: a reward that is not known (with the nearest name), or arguments that it does not take.
    """
    components: list[Component] = []
    for name, component in cfg.components.items():
        reward = resolve(component.name or name, REWARDS, what="reward")
        try:
            signature = inspect.signature(reward, follow_wrapped=False)
            signature.bind("problem", "completions_G", "context", **component.args)
        except TypeError as error:
            raise ValueError(
                f"reward.components.{name}.args: {component.name or name} cannot be called with them ({error})"
            ) from error
        for argument, value in component.args.items():
            allowed = _allowed(signature, argument)
            if allowed and value not in allowed:
                raise ValueError(
                    f"reward.components.{name}.args.{argument}={value} has to be one of {', '.join(allowed)}"
                )
        sources = None if component.sources is None else frozenset(component.sources)
        components.append(
            Component(
                name=name,
                weight=component.weight,
                schedule=component.schedule,
                sources=sources,
                reward=partial(reward, **component.args),
            )
        )
    return Scorer(components, truncated=cfg.truncated)


def _allowed(signature: inspect.Signature, argument: str) -> tuple[str, ...]:
    """The values of an argument that is one of a few; () for others."""
    parameter = signature.parameters.get(argument)
    return get_args(parameter.annotation) if parameter and get_origin(parameter.annotation) is Literal else ()
