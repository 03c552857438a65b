"""Rules that keep the project readable: sizes, docstrings, and nothing in the repository that is specific to one machine."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "r1ray").rglob("*.py"))
# The path of this checkout, home folders and private indexes: names that work on only one machine.
MACHINE = re.compile(
    rb"/root/\.|/Users/|/home/(?!r1ray)\w+/|file:///|\.internal\b|artifactory|" + re.escape(bytes(ROOT))
)


def tracked() -> list[Path]:
    """Files that git tracks or would add, without deleted ones."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted(ROOT / name for name in names if name and (ROOT / name).is_file())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_small_and_has_a_docstring(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 400, f"{lines} lines: which concept is hiding in it?"
    long = {name: length for name, length in functions(path) if length > 80}
    assert not long, f"functions over 80 lines: {long}"
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), "a module starts with a docstring"


def test_loop_fits_one_screen() -> None:
    assert dict(functions(ROOT / "r1ray" / "loop.py"))["train"] <= 60


def test_entry_point_is_short() -> None:
    assert len((ROOT / "r1ray" / "main.py").read_text().splitlines()) < 100


def test_binary_files_are_below_5_mb_in_total() -> None:
    sizes = {name_of(path): path.stat().st_size for path in tracked() if b"\0" in path.read_bytes()[:8192]}
    assert sum(sizes.values()) < 5_000_000, sizes


def test_no_file_names_a_machine() -> None:
    found = {name_of(path): match[0] for path in tracked() if (match := MACHINE.search(path.read_bytes()))}
    found.pop(name_of(Path(__file__)), None)
    found.pop("tests/fixtures/attacks.json", None)  # paths that hostile programs look for
    assert not found
