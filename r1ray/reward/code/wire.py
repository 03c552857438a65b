"""Values of Python as JSON, between the sandboxed process of a program and that of its assertions. Both get the text of this file:
standard library only. The trusted side passes the text on and never reads it.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

MAX_ITEMS = 100_000
"""Of an iterator that a function returns."""
COLLECTIONS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
SCALARS: list[tuple[type, Callable[[Any], Any]]] = [
    (type(None), lambda none: none),
    (bool, bool),
    (int, int),
    (float, float),
    (str, lambda value: str.__add__("", value)),
    (bytes, lambda value: {"bytes": value.hex()}),
    (complex, lambda value: {"complex": [value.real, value.imag]}),
]
"""How each is written; a value of a subclass as one of its base, `bool` before `int`."""


class Opaque:
    """A value of any other type: it equals nothing."""


def encoded(value: Any, *, strict: bool = False) -> Any:
    """Raises TypeError for a value of another type with `strict`; without it such a value arrives as Opaque.

    Example: `encoded([1, (2,)])` is [1, {"tuple": [2]}].
    """
    given: Any = value
    for kind, write in SCALARS:
        if isinstance(value, kind):
            return write(given)
    if isinstance(value, dict):
        return {"dict": [[encoded(part, strict=strict) for part in pair] for pair in given.items()]}
    if hasattr(given, "__next__"):
        return {"iterator": [encoded(item, strict=strict) for item in itertools.islice(given, MAX_ITEMS)]}
    name = next((name for name, kind in COLLECTIONS.items() if isinstance(value, kind)), None)
    if name is not None:
        items = [encoded(item, strict=strict) for item in given]
        return items if name == "list" else {name: items}
    if strict:
        raise TypeError(f"a {type(given).__name__} cannot be passed to a program")
    return {"opaque": []}


def decoded(value: Any) -> Any:
    """Raises ValueError, TypeError or KeyError for anything that is not `encoded`."""
    content: Any = value
    if isinstance(value, list):
        return [decoded(item) for item in content]
    if not isinstance(value, dict):
        return content
    [(name, content)] = content.items()
    if name == "dict":
        return {decoded(key): decoded(item) for key, item in content}
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "complex":
        return complex(*content)
    return Opaque() if name == "opaque" else {**COLLECTIONS, "iterator": iter}[name](map(decoded, content))


def called(space: dict[str, Any], name: str, text: str) -> str:
    """The outcome of one call, in the process of the program: its value or exception, and its arguments as it left them."""
    if name not in space:
        space[name] = getattr(space["Solution"](), name)
    args, named = decoded(json.loads(text))
    try:
        value = space[name](*args, **named)
        return json.dumps({"value": encoded(value), "args": encoded(args)})
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return json.dumps({"raised": [kinds, str(error)]})
