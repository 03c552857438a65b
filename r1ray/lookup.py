"""One way to name a part: a key of an explicit dict, or `package.module:attribute` for a part from outside this repository."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any


def resolve(name: str, known: Mapping[str, Any], *, what: str) -> Any:
    """`known[name]`, or the attribute that the import path `name` points at.

    `what` says what is looked up ("reward", "template"), for the message. Raises ValueError with the remedy when there is none.
    """
    if name in known:
        return known[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"unknown {what} {name!r}{hint} known: {', '.join(sorted(known))}, or package.module:name")
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{what} {name!r} cannot be imported ({error}); write it as package.module:function and put the package on PYTHONPATH"
        ) from error
