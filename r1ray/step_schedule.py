"""Settings that change at given steps: {step from which on: another value}."""

from collections.abc import Mapping


def value_at(step: int, first: float, changes: Mapping[int, float]) -> float:
    """Example: `value_at(99, 0.0, {100: 0.5})` is 0.0, and from step 100 on it is 0.5."""
    begun = [start for start in changes if start <= step]
    return changes[max(begun)] if begun else first
