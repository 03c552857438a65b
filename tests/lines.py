"""Counts the lines of code in r1ray/, without docstrings, comments, blank lines and imports.

python tests/lines.py            # the checkout, per folder
python tests/lines.py COMMIT     # next to the count at COMMIT, with the change in percent
"""

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

REPO = Path(__file__).parents[1]
PACKAGE = "r1ray"
TOGETHER = ("check", "cli", "recipes")
"""Folders or files that are also counted together: everything that happens before a run starts."""

LAYOUT = {
    *(tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}
"""Tokens that are not code."""

Position = tuple[int, int]
"""Line and column in characters, as tokenize counts them."""


def code_lines(source: str) -> int:
    """The number of lines that contain a token of code.

    Comments, imports and strings that are statements (docstrings of modules, classes, functions and attributes) are not code. For a
    string over several lines that is code, all non-blank lines count.

    Example: `code_lines("import os\\n\\nx = 1  # one\\n") == 1`.
    """
    left_out = list(_left_out(source))
    lines = source.splitlines()
    counted: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in LAYOUT or token.string == ";" or any(start <= token.start < end for start, end in left_out):
            continue
        counted.update(line for line in range(token.start[0], token.end[0] + 1) if lines[line - 1].strip())
    return len(counted)


def _left_out(source: str) -> Iterator[tuple[Position, Position]]:
    """(start, end) of each import and of each string that is a statement."""
    lines = source.splitlines()

    def position(line: int, byte: int) -> Position:
        return line, len(lines[line - 1].encode()[:byte].decode())  # ast counts columns in bytes

    for node in ast.walk(ast.parse(source)):
        is_text = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            assert isinstance(node, ast.stmt) and node.end_lineno is not None and node.end_col_offset is not None
            yield position(node.lineno, node.col_offset), position(node.end_lineno, node.end_col_offset)


def count(sources: Mapping[str, str]) -> Counter[str]:
    """{folder or top-level file of the package: lines}. Folders include those below them.

    Args:
        sources: {path from the repository's root: text} of the package's Python files.
    """
    lines: Counter[str] = Counter()
    for path, source in sources.items():
        _, name, *below = PurePath(path).parts
        lines[f"{name}/" if below else name] += code_lines(source)
    return lines


def together(lines: Mapping[str, int]) -> int:
    """The lines of `TOGETHER`, whether its entries are folders or files."""
    return sum(number for name, number in lines.items() if name.removesuffix("/").removesuffix(".py") in TOGETHER)


def present() -> dict[str, str]:
    """{path: text} of the checkout, committed or not."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", PACKAGE]
    names = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout.split("\0")
    files = [name for name in names if name.endswith(".py") and (REPO / name).is_file()]
    return {name: (REPO / name).read_text() for name in files}


def at(commit: str) -> dict[str, str]:
    """{path: text} of a commit; raises ValueError with the message of git when there is none."""
    done = subprocess.run(["git", "archive", commit, PACKAGE], cwd=REPO, capture_output=True)
    if done.returncode:
        raise ValueError(done.stderr.decode().strip())
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        files = [member for member in archive if member.name.endswith(".py") and member.isfile()]
        return {member.name: archive.extractfile(member).read().decode() for member in files}  # type: ignore[union-attr]


def table(now: Mapping[str, int], before: Mapping[str, int] | None) -> Iterator[str]:
    """One line per folder, then per top-level file, then the totals."""
    names = sorted(set(now) | set(before or {}), key=lambda name: (not name.endswith("/"), name))
    rows = [(f"{PACKAGE}/{name}", now.get(name, 0), before.get(name, 0) if before else 0) for name in names]
    rows.append((" + ".join(TOGETHER), together(now), together(before or {})))
    rows.append(("total", sum(now.values()), sum((before or {}).values())))
    width = max(len(name) for name, *_ in rows)
    for name, new, old in rows:
        if before is None:
            yield f"{name:{width}}  {new:7,}"
        else:
            change = f"{100 * (new - old) / old:+.1f} %" if old else "new"
            yield f"{name:{width}}  {old:7,}  {new:7,}  {change:>9}"


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", metavar="COMMIT", help="commit to compare with")
    commit = parser.parse_args(arguments).commit
    try:
        before = count(at(commit)) if commit else None
    except ValueError as error:
        parser.error(str(error))
    print(*table(count(present()), before), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
