"""tests/lines.py counts only code."""

import pytest
from lines import code_lines, count, table, together

SNIPPET = '''\
"""A module
of two lines."""

from __future__ import annotations

import os, sys
from pathlib import (
    Path,
    PurePath,
)

# A comment.
LIMIT = 3  # another
"""An attribute's docstring."""

TEXT = """
a string that is code

has its blank line left out
"""


class Thing:
    """A class."""

    size: int
    """Of the thing."""

    def grow(
        self,
        by: int,
    ) -> None:
        """A function.

        With more to say.
        """
        import math; self.size += by  # the second statement counts

        ("a bare string in brackets")
        ...


naïve = "é"; "a docstring after a letter of two bytes"; other = f"{naïve}"
'''

COUNTED = [
    "LIMIT = 3  # another",
    'TEXT = """',
    "a string that is code",
    "has its blank line left out",
    '"""',
    "class Thing:",
    "size: int",
    *("def grow(", "self,", "by: int,", ") -> None:"),
    "import math; self.size += by  # the second statement counts",
    "...",
    'naïve = "é"; "a docstring after a letter of two bytes"; other = f"{naïve}"',
]


def test_only_code_is_counted() -> None:
    assert code_lines(SNIPPET) == len(COUNTED)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", 0),
        ("import os\n", 0),
        ("# only a comment\n", 0),
        ('"""Only a docstring."""\n', 0),
        ("if True:\n    import os\n", 1),
        ("def f():\n    'says why'\n    return 'x'\n", 2),
        ("x = (\n    1,\n    # why\n\n    2,\n)\n", 4),
        ("f('an argument is no docstring')\n", 1),
        ("import os;\n", 0),
    ],
)
def test_each_kind_of_line_is_counted_correctly(source: str, expected: int) -> None:
    assert code_lines(source) == expected


def test_folders_top_level_files_and_totals_are_counted() -> None:
    sources = {
        "r1ray/check/load.py": "a = 1\nb = 2\n",
        "r1ray/check/below/rules.py": "c = 3\n",
        "r1ray/cli.py": "d = 4\n",
        "r1ray/recipes/show.py": "e = 5\n",
        "r1ray/loop.py": "f = 6\n",
        "r1ray/__init__.py": '"""Nothing."""\n',
    }
    counted = count(sources)
    assert counted == {"check/": 3, "cli.py": 1, "recipes/": 1, "loop.py": 1, "__init__.py": 0}
    assert together(counted) == 5
    *_, both, total = table(counted, {"check/": 6, "cli/": 4})
    assert both.split() == ["check", "+", "cli", "+", "recipes", "10", "5", "-50.0", "%"]
    assert total.split() == ["total", "10", "6", "-40.0", "%"]
