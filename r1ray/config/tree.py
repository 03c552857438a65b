"""Configurations as plain nested mappings."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

Tree = Mapping[str, Any]


def merge(base: Tree, fragment: Tree) -> dict[str, Any]:
    """`base` with the fragment's keys; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in fragment.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = merge(cast(Tree, below), cast(Tree, value))
        merged[key] = value
    return merged


def has(tree: Tree, key: str) -> bool:
    """Whether `tree` has a dotted key."""
    first, _, rest = key.partition(".")
    if first not in tree:
        return False
    below = tree[first]
    return not rest or (isinstance(below, Mapping) and has(cast(Tree, below), rest))


def value_of(tree: Tree, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    value: Any = tree
    for part in key.split("."):
        value = cast(Tree, value).get(part) if isinstance(value, Mapping) else None
    return value


def without(raw: Mapping[str, Any], locs: Sequence[tuple[str | int, ...]]) -> dict[str, Any]:
    """A copy of nested mappings without the keys at `locs`."""
    here = {loc[0] for loc in locs if len(loc) == 1}
    kept: dict[str, Any] = {}
    for key, value in raw.items():
        inner = [loc[1:] for loc in locs if loc[0] == key]
        if key not in here:
            kept[key] = without(cast("dict[str, Any]", value), inner) if isinstance(value, dict) else value
    return kept
