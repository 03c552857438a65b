"""Which fenced block of a completion is the program."""

import time

import pytest

from r1ray.reward.code.extract import last_program
from r1ray.reward.code.fences import blocks

READS = "n = int(input())\nprint(n + 1)\n"


def indented(by: str, *, fence: str = "```", name: str = "python", before: str = "") -> str:
    body = "".join(f"{by}{line}\n" for line in READS.splitlines())
    return f"Here:\n\n{before or by}{fence}{name}\n{body}{by}{fence}\nDone."


@pytest.mark.parametrize("by", ["", " ", "  ", "   ", "    ", "\t", "      "])
@pytest.mark.parametrize("fence", ["```", "````", "`````", "~~~", "~~~~"])
def test_fence_may_be_indented_and_longer(by: str, fence: str) -> None:
    assert last_program(indented(by, fence=fence)) == READS


@pytest.mark.parametrize("before", ["- ", "* ", "1. ", "12) ", "  - ", "Code: "])
def test_fence_may_follow_a_list_marker_or_text(before: str) -> None:
    assert last_program(indented(" " * len(before), before=before)) == READS


@pytest.mark.parametrize(
    "name",
    [
        *("python", "Python", "PYTHON", "python3", "py", "py3", "python3.11", "Python3.12", "python2", "pypy", "pypy3"),
        *("python:main.py", "python: main.py", "python,editable", "{python}", "{.python}", "python {1,3}", "main.py"),
        *("python title='a.py'", "cpython", "ipython", "python-3", "{.python .numberLines}", "solution.py", "python\r"),
    ],
)
def test_names_of_python(name: str) -> None:
    assert last_program(indented("", name=name)) == READS


@pytest.mark.parametrize(
    "name", ["python-repl", "pycon", "text", "output", "pytb", "cpp", "javascript", "pyramid", "sh"]
)
def test_names_of_other_things(name: str) -> None:
    assert last_program(indented("", name=name)) is None


@pytest.mark.parametrize("name", ["cpp", "C++", "c++20", "cpp23", "gnu++17", "main.cpp", "cxx", "cpp:a.cpp", "g++"])
def test_names_of_cpp(name: str) -> None:
    assert last_program(f"```{name}\nint main() {{}}\n```", "cpp") == "int main() {}\n"


STRING = "import sys\ns = '''\n```\n'''\nprint(len(s))\n"
PROMPT = 'TEXT = """\nSay\n```python\nx = 1\n```\n"""\nprint(input(), TEXT)\n'


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nprint(1)```", "print(1)\n"),
        ("```python\nprint(1)``` and more\n", None),
        ("```python\nx = 1\nprint('a')  ```\nIt prints a.", "x = 1\nprint('a')  \n"),
        ("```python\nprint(1)  # one```", "print(1)  # one\n"),
        ("```python\nx = 1  # as in ```\nprint(x)\n```", "x = 1  # as in ```\nprint(x)\n"),
        ("```python\nprint('```')\n```", "print('```')\n"),
        ("```python\n# it's\nprint('a')\n```", "# it's\nprint('a')\n"),
        (f"```python\n{STRING}```", STRING),
        (f"```python\n{STRING}```\nIt prints:\n```\n5\n```", STRING),
        (f"```python\n{PROMPT}```", PROMPT),
        (f"```python\n{STRING.replace(chr(39) * 3, chr(34) * 3)}```\ntext", STRING.replace("'''", '"""')),
        ("```python\ns = '''\nprint(1)\n```\nSorry:\n```python\ninput()\n```", "input()\n"),
        ("```python\ns = '''\nprint(1)\n```\n", "s = '''\nprint(1)\n"),
        ("````python\nprint(1)\n```", None),
        ("````python\nprint('''\n```\n''')\n````", "print('''\n```\n''')\n"),
        ("````markdown\n```python\nprint(1)\n```\n````", "print(1)\n"),
        ("~~~python\nprint(1)\n```\n", None),
        ("~~~py\nprint(1)\n~~~\n", "print(1)\n"),
        ("Not ~~~this~~~ but\n```py\nprint(1)\n```\n", "print(1)\n"),
        ("```python\na\n```python\nb\n```", "b\n"),
        ("The ``` fence\n```python\na\n```", "a\n"),
        ("use ```a``` or ```python\nb\n```", "b\n"),
        ("   ```python\ndef f():\n    return 1\n   ```", "def f():\n    return 1\n"),
        ("```python\n    # first\nimport a\nif a:\n    b()\n```", "    # first\nimport a\nif a:\n    b()\n"),
        ("  ```python\n  if a:\n\n\tb()\n      c()\n  ```", "if a:\n\n  b()\n    c()\n"),
        ("```python\r\nprint(1)\r\n```\r\n", "print(1)\r\n"),
    ],
)
def test_where_a_block_ends(text: str, program: str | None) -> None:
    assert last_program(text) == program


def fenced(*programs: str) -> str:
    return "\n\nThen:\n\n".join(f"```python\n{program}```" for program in programs)


SOLVE = "class Solution:\n    def solve(self, n):\n        return n\n"


@pytest.mark.parametrize(
    ("programs", "function", "chosen"),
    [
        ([READS, "assert 1 + 1 == 2\n"], None, 0),
        ([READS, "# tests\nfrom m import f\n\nassert f(\n    1\n) == 2, 'no'\nassert f(2)\n"], None, 0),
        ([READS, "print(solve(3))\n"], None, 0),
        ([READS, "import sys\nprint(sys.stdin.read())\n"], None, 1),
        (["print(1)\n", "print(2)\n"], None, 1),
        (["print(1)\n", "assert True\n"], None, 0),
        (["assert True\n", "assert 1\n"], None, 1),
        ([SOLVE, "s = Solution()\nprint(s.solve(3))\n"], "solve", 0),
        ([SOLVE, "assert Solution().solve(3) == 3\n"], "solve", 0),
        ([SOLVE, "def solve(n):\n    return input()\n", "def helper(): pass\n"], "solve", 1),
        (["async def solve(n): pass\n", "solved = 1\n"], "solve", 0),
        (["solve = lambda n: n\n", "solve == 1\n"], "solve", 0),
        (["x = 1\n", "y = 2\n"], "solve", 1),
    ],
)
def test_examples_and_tests_after_the_answer_are_not_the_answer(
    programs: list[str], function: str | None, chosen: int
) -> None:
    assert last_program(fenced(*programs), function=lambda: function) == programs[chosen]


@pytest.mark.parametrize(
    "text",
    [
        "```\n'''\n" * 20_000,
        '```python\ns = """\n```\n' * 20_000,
        "`" * 200_000,
        "``` " * 50_000,
        "```python\n" + "'''" * 100_000 + "\n```",
        "```python\n" + "'\\" * 100_000 + "\n```",
        "~~~" * 50_000 + "\n```x``` " * 20_000,
        "\n".join("`" * n for n in range(600, 2, -1)),
        "```python\n" + "x = 1 ```y\n" * 20_000,
        "- " * 100_000 + "~~~",
    ],
)
def test_reading_takes_linear_time(text: str) -> None:
    start = time.process_time()
    list(blocks(text))
    last_program(text)
    assert time.process_time() - start < 3.0
