"""The columns of a dataset's rows: nested ones, named with dots, and the rules that keep rows by the value of a column.

    args.keep: {COLUMN: {min: 1, max: 15}}              a number from 1 to 15; either bound may be left out
    args.keep: {COLUMN: {min: "2024-08-01"}}            a text that does not sort before this one: a date
    args.keep: {COLUMN: {any_of: [Level 4, Level 5]}}   one of these values

Skywork-OR1's difficulties (`extra_info.model_difficulty.DeepSeek-R1-Distill-Qwen-7B`), Big-Math's pass rates
(`llama8b_solve_rate`) and MATH's levels are columns like any other. With several columns a row must satisfy each rule.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

FORMS = "{min: NUMBER, max: NUMBER}, {min: TEXT, max: TEXT} or {any_of: [VALUES]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRule:
    """What the value of a column must be."""

    column: str
    low: Any
    high: Any
    """Numbers or texts; None: no bound on that side."""
    any_of: tuple[Any, ...] | None
    """None: the bounds apply."""

    def fits(self, value: Any) -> bool:
        """A value of another kind is outside any bounds. Example: `{min: 1, max: 15}` accepts 15, but not 16 and not None."""
        if self.any_of is not None:
            return value in self.any_of
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if _kind(value) is None or any(_kind(bound) != _kind(value) for bound in bounds):
            return False
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


def as_object(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: Any) -> list[Any] | None:
    return cast("list[Any]", value) if isinstance(value, list) else None


def read_keep_rules(given: Mapping[str, Any]) -> tuple[KeepRule, ...]:
    """`args.keep` of a source. Raises ValueError for a rule of another form."""
    return tuple(_kept(column, rule) for column, rule in given.items())


def _kept(column: str, rule: Any) -> KeepRule:
    fields = as_object(rule) or {}
    any_of = as_list(fields.get("any_of"))
    given = [fields[name] for name in ("min", "max") if name in fields]
    comparable = all(_kind(bound) is not None for bound in given) and len({_kind(bound) for bound in given}) < 2
    known = fields.keys() <= {"min", "max"} if any_of is None else fields.keys() == {"any_of"}
    if not fields or not known or not comparable or (len(given) == 2 and given[0] > given[1]) or any_of == []:
        raise ValueError(f"keep.{column}={rule!r:.60} has to be {FORMS}")
    low, high = fields.get("min"), fields.get("max")
    return KeepRule(column=column, low=low, high=high, any_of=None if any_of is None else tuple(any_of))


def _kind(value: Any) -> str | None:
    """Numbers are compared with numbers and texts with texts; None for a value that is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return "text" if isinstance(value, str) else None


def as_columns(row: Any, *, name: str) -> dict[str, Any]:
    """The row as {column: value}; columns of a list (Open-Reasoner-Zero) are "0", "1", .... Raises ValueError for anything else."""
    parts = as_list(row)
    theirs = as_object(row) if parts is None else {str(index): part for index, part in enumerate(parts)}
    if theirs is None:
        raise ValueError(f"source {name!r}: a row must be an object, not {shown(row)}")
    return theirs


def step_into(row: Mapping[str, Any], column: str) -> tuple[bool, Any]:
    """(found, value) of "a.b" in {"a": {"b": value}}. A name may contain dots itself: "Qwen-1.5B" is looked up as a whole first."""
    if column in row:
        return True, row[column]
    outer, dot, rest = column.partition(".")
    inner: Any = row.get(outer) if dot else None
    parts = as_list(inner)
    nested = as_object(inner) if parts is None else {str(index): part for index, part in enumerate(parts)}
    return step_into(nested, rest) if nested else (False, None)


def is_kept(row: Mapping[str, Any], kept: tuple[KeepRule, ...], *, name: str) -> bool:
    """Raises ValueError when the row has no such column."""
    for rule in kept:
        found, value = step_into(row, rule.column)
        if not found:
            raise ValueError(
                f"source {name!r}: there is no column {rule.column!r} to keep rows by. A row: {shown(row)}"
            )
        if not rule.fits(value):
            return False
    return True


def shown(row: Any) -> str:
    """The beginning of a row, for messages. Surrogates without their other half are escaped: no terminal can print them."""
    text = json.dumps(row, ensure_ascii=False, default=str).encode(errors="backslashreplace").decode()
    return text if len(text) <= 400 else text[:400] + "..."
