"""Settings that change at given steps: {first step: value from there on}."""

from collections.abc import Mapping


def value_at(step: int, first: float, changes: Mapping[int, float]) -> float:
    """The value at `step`; `first` before any change. Example: `value_at(99, 0.0, {100: 0.5})` is 0.0, from step 100 on 0.5."""
    begun = [start for start in changes if start <= step]
    return changes[max(begun)] if begun else first
