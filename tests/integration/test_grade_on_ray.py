"""`python -m r1ray.grade` gives the same verdicts with reward workers on Ray and without Ray."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = ("exit0_sys_module", "honest_input", "honest_typing_import", "math_tower_power", "exit0_fn_sys")


def graded(rows: Path, out: Path, *overrides: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "r1ray.grade", str(rows), str(out), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [{**json.loads(line), "seconds": 0} for line in out.read_text().splitlines()]


def test_verdicts_are_the_same_with_and_without_ray(tmp_path: Path) -> None:
    entries = json.loads((ROOT / "tests/fixtures/attacks.json").read_text())["entries"]
    chosen = [entry for entry in entries if entry["name"] in NAMES]
    rows = tmp_path / "in.jsonl"
    fields = ("kind", "code", "tests", "limits")
    lines = [{"id": entry["name"], **{key: entry[key] for key in fields if key in entry}} for entry in chosen]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    on_ray = graded(rows, tmp_path / "ray.jsonl")
    assert on_ray == graded(rows, tmp_path / "local.jsonl", "reward.local=true")
    assert [row["id"] for row in on_ray] == [entry["name"] for entry in chosen]
    for row, entry in zip(on_ray, chosen, strict=True):
        assert row["reward"] == entry["expected"]["reward"] and row["status"] in entry["expected"]["status"]
    assert {row["reward"] for row in on_ray} == {0, 1}
