"""Arguments that generators of problems share."""

from typing import Any, cast

from r1ray.config.base import PositiveInt, Seed
from r1ray.data.base import SourceArgs
from r1ray.plugin import invalid


class GeneratorArgs(SourceArgs):
    num_problems: PositiveInt
    seed: Seed = 0
    """Another seed gives other problems of the same split."""


def low_and_high(argument: str, given: Any, allowed: range) -> list[int]:
    """[lowest, highest] from a number or from such a list; what a field validator returns. Raises `invalid` for anything else."""
    both = cast("list[Any]", given if isinstance(given, list) else [given, given])
    if len(both) != 2 or not all(type(n) is int and n in allowed for n in both) or both[0] > both[1]:
        rule = f"must be a number from {allowed[0]} to {allowed[-1]}, or [lowest, highest] of those"
        raise invalid(argument, rule, f"for example {argument}={allowed[1]} or {argument}=[{allowed[0]},{allowed[1]}]")
    return both
