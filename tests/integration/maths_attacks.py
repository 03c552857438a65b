"""The hostile answers of tests/fixtures/attacks.json, verified like a completion's. To run it as another user:

setpriv --reuid 65534 --regid 65534 --clear-groups python tests/integration/maths_attacks.py
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from r1ray.reward import math as maths  # noqa: E402
from r1ray.reward.base import ComponentScore, correct_or_incorrect  # noqa: E402
from r1ray.types import Message, Problem  # noqa: E402

PWNED = Path("/tmp/r1ray_pwned")
MAX_GROWTH = 16 << 20
"""Bytes that an answer may add to the memory of the trusted process; a bomb that gets in takes hundreds of millions."""
ENTRIES: dict[str, dict[str, Any]] = {
    entry["name"]: entry
    for entry in json.loads((ROOT / "tests/fixtures/attacks.json").read_text())["entries"]
    if entry["kind"] == "math_answer"
}


def problem(gold: str) -> Problem:
    return Problem(
        id="p",
        source="s",
        messages=(Message(role="user", content="?"),),
        prompt_ids_T=np.array([1], np.int32),
        verifier="math",
        payload={"answers": [gold]},
    )


def verified(entry: dict[str, Any]) -> ComponentScore:
    """Scores an answer as `accuracy` does, without the cache of pairs."""
    maths.compare.cache_clear()
    answer = maths.final_answer(entry["code"])
    return correct_or_incorrect(False) if answer is None else maths.verify(problem(entry["tests"]["gold"]), answer)


def faults(name: str) -> list[str]:
    """The violations when this answer is verified, twice; [] when there are none."""
    entry, violations = ENTRIES[name], []
    memory, verdicts = resident(), list[ComponentScore]()
    for _ in range(2):
        start = time.monotonic()
        verdicts.append(verified(entry))
        if (
            time.monotonic() - start > 2 * entry["limits"]["wall"] + 1
        ):  # on a busy machine the comparison is repeated once
            violations.append("it took too long")
    score, expected = verdicts[0], entry["expected"]
    if score.status not in expected["status"] or not (entry.get("reward_any") or score.value == expected["reward"]):
        violations.append(f"{score}, not {expected}")
    if verdicts[1] != score:
        violations.append(f"first {score}, then {verdicts[1]}")
    if resident() - memory > MAX_GROWTH:
        violations.append(f"{(resident() - memory) >> 20} MiB more memory")
    if PWNED.exists():
        violations.append(f"it has written {PWNED}")
    return violations


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    maths.compare("x + x", ("2x",))  # the child is running before anything is timed
    found = {name: violations for name in ENTRIES if (violations := faults(name))}
    for name, violations in found.items():
        print(name, *violations, sep="\n  ")
    print(f"uid {os.getuid()}: {len(ENTRIES)} answers, {len(found)} verdicts not allowed")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
