"""The run directory: its names, and a run that resumes in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from r1ray.run.directory import RunDir, changes, open_run, versions


def events(run: RunDir) -> list[dict]:
    return [json.loads(line) for line in run.events.read_text().splitlines()]


def test_names_that_other_tools_read() -> None:
    run = RunDir(Path("runs/a"))
    stage = run.stage("rl")
    names = [
        run.config,
        run.report,
        run.events,
        run.log("rollout", 3),
        stage.metrics,
        stage.rollouts,
        stage.checkpoints,
    ]
    assert [str(name.relative_to("runs/a")) for name in names] == [
        "config.yaml",
        "report.html",
        "events.jsonl",
        "logs/rollout-3.log",
        "stages/rl/metrics.jsonl",
        "stages/rl/rollouts",
        "stages/rl/checkpoints",
    ]


def test_a_new_run_and_its_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = open_run("a", raw={"steps": 5, "trainer": {"lr": 0.1}}, overrides=["steps=5"])
    assert run.path == tmp_path / "a", "workers have other working directories"
    assert yaml.safe_load(run.config.read_text()) == {"steps": 5, "trainer": {"lr": 0.1}}
    assert (run.path / "overrides.txt").read_text() == "steps=5\n"
    assert "torch" in json.loads((run.path / "versions.json").read_text())
    resumed = open_run("a", raw={"steps": 9, "trainer": {"lr": 0.1}}, overrides=["steps=9", "resume=auto"])
    assert yaml.safe_load(resumed.config.read_text())["steps"] == 9
    start, resume = events(resumed)
    assert (start["kind"], resume["kind"]) == ("run_started", "run_resumed")
    assert resume["changed"] == {"steps": [5, 9]}


def test_one_run_at_a_time(tmp_path: Path) -> None:
    open_run(tmp_path, raw={"steps": 1}, overrides=[])
    code = f"from r1ray.run.directory import open_run; open_run({str(tmp_path)!r}, raw={{}}, overrides=[])"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is in use by another run" in other.stderr
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"steps": 1}


def test_changes_are_dotted() -> None:
    assert changes({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}, "e": 3}) == {
        "a.c": [[1], [2]],
        "d": [2, None],
        "e": [None, 3],
    }


def test_versions_are_read_without_importing(capsys: pytest.CaptureFixture[str]) -> None:
    found = versions()
    assert {"python", "platform", "r1ray", "ray", "numpy", "command"} <= found.keys()


def test_an_event_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunDir(tmp_path / "gone").event("alarm", step=3)
    assert "alarm" in capsys.readouterr().err


def test_no_file_of_a_run_is_writable_by_every_user(tmp_path: Path) -> None:
    """Whatever the umask of the shell: such a run could not resume."""
    before = os.umask(0)
    try:
        run = open_run(tmp_path / "run", raw={"steps": 5}, overrides=[])
        run.stage("rl").checkpoints.mkdir(parents=True)
        assert {path for path in (run.path, *run.path.rglob("*")) if path.stat().st_mode & 0o002} == set()
        assert os.umask(0) == 0o002, "what the group may do is the user's choice"
    finally:
        os.umask(before)
