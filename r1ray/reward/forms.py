"""The forms in which a reward function may be written. Its signature decides.

    reward(problem, completions_G, context)         r1ray's (`r1ray.reward.base`); args comes last where it declares arguments
    @per_completion  reward(problem, text)          the same, lifted
    reward(completions, **columns)                  TRL's (`r1ray.reward.trl`); prompts, completion_ids and columns by name

A function of another form is refused by the check, with this list.
"""

import inspect
from collections.abc import Callable
from typing import Any

from r1ray.plugin import Args, args_of
from r1ray.reward.trl import TrlReward

ACCEPTED = (
    "write it as f(problem, completions_G, context), with args last where it declares Args, or f(problem, text) under "
    "@r1ray.reward.base.per_completion, or TRL's f(completions, **columns); it returns one number or None for each completion"
)
OTHER_NAMES = frozenset(
    (
        *("data_source", "solution_str", "ground_truth", "extra_info"),
        *("queries", "prompts", "labels"),
        *("completion", "response", "responses", "solution", "answer"),
    )
)
"""Parameters of reward functions of other libraries (verl, OpenRLHF) and of functions of a single completion."""


def as_reward(function: Any) -> Callable[..., Any]:
    """A function that the scorer can call: `function` itself, or an adapter. Raises ValueError when it has none of the forms."""
    if getattr(function, "reads_tokens", None) is not None:  # lifted by per_group or per_completion
        return function
    if inspect.isclass(function):
        raise ValueError(f"is the class {function.__name__}, not a function or an object that can be called")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise ValueError("is async, and nothing awaits it")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise ValueError("has no signature that can be read") from None
    if _is_trl(signature):
        return TrlReward(function)
    num_arguments = 3 if args_of(function) is Args else 4
    try:
        signature.bind(*[None] * num_arguments)
    except TypeError:
        num_arguments = 0
    if not num_arguments or OTHER_NAMES & signature.parameters.keys():
        raise ValueError(f"has the parameters {signature}, which is none of the forms of a reward")
    return function


def _is_trl(signature: inspect.Signature) -> bool:
    parameters = signature.parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    any_columns = inspect.Parameter.VAR_KEYWORD in kinds
    if inspect.Parameter.POSITIONAL_ONLY in kinds:
        return False
    if "completions" not in parameters:
        return any_columns and len(parameters) == 1
    return next(iter(parameters)) != "problem" or (any_columns and "context" not in parameters)
