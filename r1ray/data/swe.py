"""Issues of real repositories and the patch that was merged: a row -> an Item for the verifier `patch` (SWE-RL).

SWE-RL's own data (arXiv 2502.18449) was not published. The closest public set that includes the files is
princeton-nlp/SWE-bench_oracle: the issue, the files that the patch changes, and the patch.
"""

import itertools
import re
from collections.abc import Iterator, Mapping

from r1ray.data.base import Item, Row, SourceArgs, Unreadable
from r1ray.data.columns import as_list, as_object
from r1ray.data.schemas import text, user

HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")
START, END = re.compile(r"\[start of (.+)\]"), re.compile(r"\[end of (.+)\]")
NUMBER = re.compile(r"^\d+ ?")
NO_FILE = "/dev/null"


def swe(row: Row, args: SourceArgs) -> Item:
    """An `issue`, `files` (a list of {path, content}, or {path: content}), and `patch`, a unified diff of those files."""
    listed = as_list(row["files"])
    try:
        pairs = as_object(row["files"]) if listed is None else {file["path"]: file["content"] for file in listed}
    except (KeyError, TypeError) as error:
        raise Unreadable(f"files have to be {{path, content}} ({type(error).__name__}: {error})") from error
    files = {path: content for path, content in (pairs or {}).items() if isinstance(content, str)}
    if not files:
        raise Unreadable("there are no files")
    merged = patched(files, text(row["patch"]))
    shown = "\n\n".join(f"### {path}\n{content}" for path, content in files.items())
    return Item(
        messages=user(f"{text(row['issue'])}\n\nThe files:\n\n{shown}"),
        verifier="patch",
        payload={"files": files, "patched": merged},
        id=row.get("id"),
    )


def swe_bench_oracle(row: Row, args: SourceArgs) -> Item:
    """princeton-nlp/SWE-bench_oracle: `text` contains the files, each between a start and an end mark, with numbered lines."""
    files: dict[str, list[str]] = {}
    inside = ""
    for line in text(row["text"]).split("\n"):
        if not inside and (start := START.fullmatch(line)):
            inside = start[1]
            files[inside] = []
        elif inside and (end := END.fullmatch(line)) and end[1] == inside:
            inside = ""
        elif inside:
            files[inside].append(NUMBER.sub("", line, count=1))
    contents = {path: "\n".join(lines) for path, lines in files.items()}
    touched = {path for path, _, _ in _changes(text(row["patch"]))}
    return swe({**row, "files": {path: content for path, content in contents.items() if path in touched}}, args)


def patched(files: Mapping[str, str], patch: str) -> dict[str, str]:
    """{path: text} of the files that the unified diff changes or creates.

    Raises Unreadable for a diff that does not apply, changes nothing, removes or renames a file, or is binary.

    Example: `patched({"a": "1\\n2\\n"}, "--- a/a\\n+++ b/a\\n@@ -1,2 +1,2 @@\\n 1\\n-2\\n+3\\n")` is {"a": "1\\n3\\n"}.
    """
    merged: dict[str, str] = {}
    for path, is_new, hunks in _changes(patch):
        if is_new == (path in files) or path in merged:
            raise Unreadable(f"the patch does not fit {path}, which {'exists' if path in files else 'does not exist'}")
        merged[path] = _changed(files.get(path, ""), hunks, path=path)
    if not merged:
        raise Unreadable("the patch changes nothing")
    return merged


def _changes(patch: str) -> Iterator[tuple[str, bool, list[str]]]:
    """(path, whether it is a new file, lines of its hunks) of each file of a diff."""
    lines = patch.split("\n")
    starts = [n for n in range(len(lines) - 1) if lines[n].startswith("--- ") and lines[n + 1].startswith("+++ ")]
    if re.search(r"^(?:rename from|GIT binary patch|Binary files)", patch, re.MULTILINE):
        raise Unreadable("the patch renames a file or changes a binary file")
    for start, end in itertools.pairwise([*starts, len(lines)]):
        before, after = (lines[start + side][4:].split("\t")[0] for side in (0, 1))
        if after == NO_FILE:
            raise Unreadable(f"the patch removes {before}")
        yield after.removeprefix("b/"), before == NO_FILE, lines[start + 2 : end]


def _changed(content: str, hunks: list[str], *, path: str) -> str:
    ends = not content or content.endswith("\n")
    lines = content.removesuffix("\n").split("\n") if content else []
    result: list[str] = []
    position, last = 0, ""
    for hunk in hunks:
        mark, line = hunk[:1], hunk[1:]
        if header := HUNK.match(hunk):
            first = int(header[1]) - (header[2] != "0")  # from 0; "-12,0" means: insert after line 12
            if first < position:
                raise Unreadable(f"the hunks of {path} do not follow each other")
            result += lines[position:first]
            position = first
        elif mark == "+":
            result.append(line)
        elif mark in (" ", "-"):
            if position >= len(lines) or lines[position] != line:
                raise Unreadable(f"line {position + 1} of {path} differs from the patch")
            result += [line] if mark == " " else []
            position += 1
        elif mark == "\\":  # no newline at the end of the file
            ends = last == "-"
        last = mark or last
    result += lines[position:]
    return "\n".join(result) + ("\n" if ends and result else "")
