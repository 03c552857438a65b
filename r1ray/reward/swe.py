"""Patch similarity (SWE-RL, arXiv 2502.18449, 2.2): how similar the completion's patch is to the one that was merged.

    bad format   -1
    otherwise    the similarity of a file's two unified diffs (0 if only one patch changes the file), mean over the files that
                 either patch changes

A patch is a list of SEARCH/REPLACE blocks in the answer, each under the name of its file:

    ### a.py
    <<<<<<< SEARCH
    x = 3
    =======
    x = 4
    >>>>>>> REPLACE

`payload` is {"files": {path: text}, "patched": {path: text}}. Bad format: a tag that does not occur exactly once, no reasoning, no
block, a SEARCH that is not in its file, a block that changes nothing. (The paper's second tag is `solution`, ours `answer`.)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, unified_diff

from r1ray.reward.base import ComponentScore, correct_or_incorrect, per_completion
from r1ray.reward.format import fits_soft
from r1ray.reward.text import last_answer
from r1ray.types import Problem

SEARCH, MIDDLE, REPLACE, FILE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "###"
MAX_PAIRS = 2_000_000
"""Maximum number of pairs of equal characters in two diffs (a second of work). Beyond it, diffs are compared line by line."""


class BadPatch(ValueError):
    """The text is no patch of these files."""


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 for a patch that gives the merged files, else 0."""
    files: Mapping[str, str] = problem.payload["files"]
    try:
        correct = apply(blocks(answer), files) == {**files, **problem.payload["patched"]}
    except BadPatch:
        correct = False
    return correct_or_incorrect(correct)


@per_completion
def patch_similarity(problem: Problem, text: str) -> ComponentScore:
    """Between 0 and 1, or -1; correct when the patched files are the merged ones."""
    files: Mapping[str, str] = problem.payload["files"]
    merged = {**files, **problem.payload["patched"]}
    answer = last_answer(text)
    try:
        if not fits_soft(text) or answer is None:
            raise BadPatch("a tag is missing or occurs twice")
        patched = apply(blocks(answer), files)
    except BadPatch:
        return ComponentScore(value=-1.0, status="wrong_answer", correct=False)
    value = similarity(diffs(files, patched), diffs(files, merged))
    correct = patched == merged
    return ComponentScore(value=value, status="ok" if correct else "wrong_answer", correct=correct)


def blocks(answer: str) -> list[tuple[str, str, str]]:
    """(path, search, replace) of every block, in order. Raises BadPatch."""
    found: list[tuple[str, str, str]] = []
    path, search, replace, part = "", list[str](), list[str](), None
    for line in answer.split("\n"):
        mark = line.rstrip()
        if mark == SEARCH and part is None:
            search, replace = [], []
            part = search
        elif mark == MIDDLE and part is search:
            part = replace
        elif mark == REPLACE and part is replace:
            found.append((path, "\n".join(search), "\n".join(replace)))
            part = None
        elif part is not None:
            part.append(line)
        elif mark.startswith(FILE + " "):
            path = mark.removeprefix(FILE).strip()
    if part is not None or not found:
        raise BadPatch("a block is not closed, or there is none")
    return found


def apply(patch: Sequence[tuple[str, str, str]], files: Mapping[str, str]) -> dict[str, str]:
    """The files after the blocks. Each replaces the first lines that equal its search; an empty search creates a file. Raises
    BadPatch.
    """
    patched = dict(files)
    for path, search, replace in patch:
        before = patched.get(path)
        if before is None and not search and path and replace:
            patched[path] = replace + "\n"
            continue
        # A line break is added on both sides, so that only whole lines match, including the first and the last line of the file.
        lines = f"\n{before or ''}\n"
        if before is None or not search or search == replace or f"\n{search}\n" not in lines:
            raise BadPatch(f"{path}: the block changes nothing, or its SEARCH is not in the file")
        patched[path] = lines.replace(f"\n{search}\n", f"\n{replace}\n" if replace else "\n", 1)[1:-1]
    return patched


def diffs(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """{path: unified diff} of the files that differ."""
    return {
        path: "\n".join(unified_diff(before.get(path, "").splitlines(), text.splitlines(), lineterm=""))
        for path, text in after.items()
        if text != before.get(path)
    }


def similarity(ours: Mapping[str, str], theirs: Mapping[str, str]) -> float:
    """Mean similarity of two sets of diffs; 1 if both are empty. Example: `similarity({"a": "x"}, {"a": "x", "b": "y"})` is 0.5."""
    touched = {*ours, *theirs}
    if not touched:
        return 1.0
    both = ours.keys() & theirs.keys()
    return sum(_ratio(ours[path], theirs[path]) for path in touched if path in both) / len(touched)


def _ratio(a: str, b: str) -> float:
    """2 * matching / all characters, in bounded time: it compares lines when too many characters are equal, and whole texts when
    too many lines are.
    """
    for ours, theirs in ((a, b), (a.splitlines(), b.splitlines())):
        counts = Counter(theirs)
        if sum(num * counts[unit] for unit, num in Counter(ours).items()) <= MAX_PAIRS:
            return SequenceMatcher(None, ours, theirs, autojunk=False).ratio()
    return float(a == b)
