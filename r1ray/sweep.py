"""A multirun (`--multirun trainer.lr=1e-5,1e-4`): the names of its runs, one run after another, and a table of them at the end."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from r1ray.check import CheckedRun
from r1ray.compare import comparison
from r1ray.run.stop import EXIT_CODE

LONGEST_VALUE = 40


def suffixes(jobs: Sequence[Sequence[str]]) -> list[str]:
    """What to add to the name of each job, given the overrides of all: the keys that differ, and their values.

    Example: `suffixes([["steps=9", "trainer.lr=1e-5"], ["steps=9", "trainer.lr=1e-4"]])` is ["_lr_1e-5", "_lr_1e-4"]. Names that
    would be equal get the number of the job.
    """
    values: list[dict[str, str]] = []
    for overrides in jobs:
        parts = [override.partition("=") for override in overrides]
        values.append({key: value for key, _, value in parts})
    keys = dict.fromkeys(key for own in values for key in own)
    differing = [key for key in keys if len({own.get(key) for own in values}) > 1 and key not in ("name", "run_dir")]
    found = [
        "".join(f"_{_word(key.rpartition('.')[2])}_{_word(own.get(key, ''))}" for key in differing) for own in values
    ]
    named = any(len({own.get(key) for own in values}) == len(jobs) for key in ("name", "run_dir"))
    unique = named or len(set(found)) == len(found)
    return [suffix if unique else f"{suffix}_{number}" for number, suffix in enumerate(found)]


def _word(text: str) -> str:
    """For the name of a folder."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")[:LONGEST_VALUE]


def run_each(runs: Sequence[CheckedRun], main: Callable[[CheckedRun], None]) -> int:
    """Run all jobs and print a table of them; returns the exit code. A run that fails does not keep the others from running.

    A stop (SIGTERM, Ctrl-C) ends the whole sweep.
    """
    failed = 0
    for number, run in enumerate(runs, start=1):
        print(f"r1ray: run {number} of {len(runs)}: {run.config.name} -> {run.config.run_dir}", flush=True)
        try:
            main(run)
        except SystemExit as error:
            if error.code in (None, 0):
                continue
            if error.code == EXIT_CODE:
                print(f"r1ray: {len(runs) - number} runs of the sweep were not started", file=sys.stderr)
                raise
            print(error.code, file=sys.stderr)
            failed += 1
    folders = [Path(run.config.run_dir).expanduser() for run in runs]
    print(comparison([folder for folder in folders if folder.is_dir()]))
    if failed:
        print(f"r1ray: {failed} of {len(runs)} runs failed", file=sys.stderr)
    return 1 if failed else 0
