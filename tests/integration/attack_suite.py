"""Hostile and honest programs (tests/fixtures/attacks.json) in one tier of the sandbox. As a script it runs them twice, also as
another user:

    setpriv --reuid 65534 --regid 65534 --clear-groups /usr/bin/python3 tests/integration/attack_suite.py T2

With `chosen` as the tier it takes the one that r1ray would choose. It needs only Python and this repository, so that an
unprivileged user can run it.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from r1ray.sandbox.base import Limits, Program, RunResult  # noqa: E402
from r1ray.sandbox.choose import PYTHON, choose, unprivileged_uid  # noqa: E402
from r1ray.sandbox.spec import ZygoteSpec  # noqa: E402
from r1ray.sandbox.supervisor import Zygote  # noqa: E402

_spec = importlib.util.spec_from_file_location("compare", ROOT / "r1ray/reward/code/compare.py")
assert _spec is not None and _spec.loader is not None
compare = importlib.util.module_from_spec(_spec)  # by its path: the package imports more than a bare Python has
_spec.loader.exec_module(compare)

CANARY, PWNED = b"canary-7f3a", Path("/tmp/r1ray_pwned")
ENTRIES: dict[str, dict[str, Any]] = {
    entry["name"]: entry
    for entry in json.loads((ROOT / "tests/fixtures/attacks.json").read_text())["entries"]
    if entry["kind"] != "math_answer"
}


def spec_of(tier: Any) -> ZygoteSpec:
    return ZygoteSpec(python=PYTHON, uid=unprivileged_uid(), tier=tier)


def limits_of(entry: dict[str, Any]) -> Limits:
    given = {"cpu": 2, "memory_mb": 256, "output_bytes": 1 << 20, **(entry.get("limits") or {})}
    return Limits(
        cpu_s=given["cpu"],
        wall_s=given.get("wall", 3 * given["cpu"]),
        memory_bytes=given["memory_mb"] << 20,
        output_bytes=given["output_bytes"],
    )


def run(zygote: Zygote, entry: dict[str, Any]) -> tuple[int, str, list[RunResult]]:
    """(reward, status, how each run ended): all tests pass, or reward 0."""
    limits, code = limits_of(entry), entry["code"].encode()
    if entry["kind"] == "function_call":
        cases = entry["tests"]["cases"]
        stdin = "".join(json.dumps(case["args"]) + "\n" for case in cases).encode()
        result = zygote.run(Program(code=code, stdin=stdin, function=entry["tests"]["fn_name"], limits=limits))
        if result.status != "ok":
            return 0, result.status, [result]
        right = all(compare.same_results(result.stdout, [case["expected"] for case in cases]))
        return int(right), "ok" if right else "wrong_answer", [result]
    ends = []
    for test in entry["tests"]:
        ends.append(zygote.run(Program(code=code, stdin=test["input"].encode(), limits=limits)))
        if ends[-1].status != "ok":
            return 0, ends[-1].status, ends
        if not compare.same_output(ends[-1].stdout, test["output"]):
            return 0, "wrong_answer", ends
    return 1, "ok", ends


def tried(zygote: Zygote, name: str) -> tuple[list[tuple[int, str]], list[str]]:
    """(verdicts of the entry and of an honest program after it; violations)."""
    entry, violations = ENTRIES[name], []
    expected, start = entry["expected"], time.monotonic()
    reward, status, ends = run(zygote, entry)
    verdicts = [(reward, status)]
    if status not in expected["status"] or not (entry.get("reward_any") or reward == expected["reward"]):
        violations.append(f"{reward} {status}, not {expected}: {ends[-1].reason} {ends[-1].stderr[-300:]!r}")
    if time.monotonic() - start > len(ends) * (limits_of(entry).wall_s + 1):
        violations.append("the slot was occupied too long")
    if "expect_stdout" in entry and ends[0].stdout.decode(errors="replace") != entry["expect_stdout"]:
        violations.append(f"it wrote {ends[0].stdout[:200]!r}")
    if any(CANARY in result.stdout + result.stderr for result in ends):
        violations.append("it has read the environment of its parent")
    if PWNED.exists():
        violations.append(f"it has written {PWNED}")
    if "followup" in entry:
        later = entry["followup"]
        later = {**entry, **later} if isinstance(later, dict) else {**entry, "code": later}
        reward, status, ends = run(zygote, later)
        verdicts.append((reward, status))
        if reward != 1:
            violations.append(f"the honest program after it: {status} {ends[-1].reason} {ends[-1].stderr[-300:]!r}")
    return verdicts, violations


def twice(zygote: Zygote) -> dict[str, list[str]]:
    """{entry: violations in two passes over all entries, including different verdicts}; {} when there are none."""
    first, second = ({name: tried(zygote, name) for name in ENTRIES} for _ in range(2))
    found = {}
    for name in ENTRIES:
        (verdicts, violations), (again, violations_again) = first[name], second[name]
        differ = [f"{verdicts} first, then {again}"] if again != verdicts else []
        if all_violations := [*violations, *violations_again, *differ]:
            found[name] = all_violations
    return found


def main(tier: str) -> int:
    os.environ["R1RAY_CANARY"] = CANARY.decode()
    spec = choose(spec_of("T2"), min_tier="T2") if tier == "chosen" else spec_of(tier)
    zygote = Zygote(spec)
    found = twice(zygote)
    zygote.close()
    print(*spec.refused, sep="\n", file=sys.stderr)
    for name, violations in found.items():
        print(name, *violations, sep="\n  ")
    print(f"{spec.tier}, uid {os.getuid()}: {len(ENTRIES)} programs twice, {len(found)} with violations")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
