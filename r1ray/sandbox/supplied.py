"""Names that the text of a function problem may use without importing them. Part of the zygote: standard library only.

The harnesses of LeetCode, LiveCodeBench and APPS put imports before a solution; LiveCodeBench's are these, in this order, which
matters: a name that several modules have is that of the last one, and a builtin keeps its meaning.
"""

from __future__ import annotations

import builtins
import importlib
from contextlib import suppress
from typing import Any

STARRED = (
    *(
        "string",
        "re",
        "datetime",
        "collections",
        "heapq",
        "bisect",
        "copy",
        "math",
        "random",
        "statistics",
        "itertools",
    ),
    *("functools", "operator", "io", "sys", "json", "typing", "builtins"),
)
"""`from ... import *`, then `import ...`."""
MODULES = (*STARRED[:-1], "fractions", "time")
OPTIONAL = ("sortedcontainers",)
"""Starred where they are installed for `sandbox.python`."""
RECURSION_LIMIT = 50_000
NODES = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""
"""LeetCode's own classes, which annotations name."""


def supplied() -> dict[str, Any]:
    """The builtins of a solution: those of Python and the names above. So they are none of the solution's own names."""
    names: dict[str, Any] = {"__name__": "solution"}
    for name in STARRED:
        exec(f"from {name} import *", names)
    for name in OPTIONAL:
        with suppress(ImportError):
            exec(f"from {name} import *", names)
    names |= {name: importlib.import_module(name) for name in MODULES}
    exec(NODES, names)
    for name in ("__name__", "__builtins__"):
        del names[name]
    return {**vars(builtins), **names}
