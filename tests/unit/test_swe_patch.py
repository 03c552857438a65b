"""Unified diffs of real repositories: their effect on files, and diffs that cannot be used."""

import difflib
import random

import pytest

from r1ray.data.base import Unreadable
from r1ray.data.swe import patched


def diff(before: str, after: str, *, around: int) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "a/x y.py", "b/x y.py", n=around)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def test_diff_gives_the_new_text_with_or_without_a_final_newline() -> None:
    rng = random.Random(0)
    for _ in range(500):
        before, after = (
            "\n".join(rng.choices("abc ", k=rng.randint(1, 25))) + rng.choice(["", "\n"]) for _ in range(2)
        )
        if before != after:
            patch = diff(before, after, around=rng.choice([0, 1, 3]))
            assert patched({"x y.py": before}, patch) == {"x y.py": after}


def test_new_files_and_extra_lines_of_git_are_read() -> None:
    patch = (
        "diff --git a/n.py b/n.py\nnew file mode 100644\nindex 0000000..3e75765\n--- /dev/null\n+++ b/n.py\n"
        "@@ -0,0 +1,2 @@\n+new\n+file\n"
        "diff --git a/a.py b/a.py\nindex 5b60e2a..a15774e 100644\n--- a/a.py\n+++ b/a.py\n"
        "@@ -1,2 +1,2 @@ class A:\n one\n-two\n+2\n"
    )
    assert patched({"a.py": "one\ntwo\nthree\n"}, patch) == {"n.py": "new\nfile\n", "a.py": "one\n2\nthree\n"}


HEAD = "--- a/a.py\n+++ b/a.py\n"


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("", "changes nothing"),
        (f"{HEAD}@@ -1,1 +1,1 @@\n-other\n+new\n", "line 1 of a.py differs from the patch"),
        (f"{HEAD}@@ -9,1 +9,1 @@\n-one\n+new\n", "line 9 of a.py"),
        (f"{HEAD}@@ -2,1 +2,1 @@\n-two\n+2\n@@ -1,1 +1,1 @@\n-one\n+1\n", "do not follow each other"),
        ("--- a/b.py\n+++ b/b.py\n@@ -1,1 +1,1 @@\n-one\n+new\n", "b.py, which does not exist"),
        ("--- /dev/null\n+++ b/a.py\n@@ -0,0 +1,1 @@\n+new\n", "a.py, which exists"),
        ("--- a/a.py\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-one\n", "removes a/a.py"),
        ("diff --git a/a.py b/c.py\nrename from a.py\nrename to c.py\n", "renames a file"),
    ],
)
def test_unusable_diff_is_reported_with_the_reason(patch: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        patched({"a.py": "one\ntwo\n"}, patch)
