"""launch/submit.py without a cluster: what it refuses, what it uploads, how it reads the end of a job."""

import asyncio
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def submit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The tool as a module, in a process with a token; changes of folder, path and environment are undone."""
    spec = importlib.util.spec_from_file_location("submit", ROOT / "launch/submit.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return module


def names_in(package: Path) -> list[str]:
    return zipfile.ZipFile(package).namelist()


def test_mistakes_are_reported_before_uploading(submit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["--", "trainer.lrr=1", "run_dir=/shared/x"]) == 1
    error = capsys.readouterr().err
    assert "trainer.lrr" in error and "did you mean trainer.lr?" in error


def test_run_directory_that_would_be_lost_is_refused(
    submit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit.main(["--", "scale=smoke"]) == 1
    assert "run_dir=runs/smoke would be lost" in capsys.readouterr().err
    taken = tmp_path / "runs/smoke/config.yaml"
    taken.parent.mkdir(parents=True)
    taken.write_text("{}")
    assert submit.main(["--", "scale=smoke"]) == 1, "whether it is free is another question"
    assert "run_dir=runs/smoke would be lost" in capsys.readouterr().err


def test_paths_on_the_cluster_are_not_checked(submit: Any, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    submit.check_overrides(["model.path=/models/only/there", f"run_dir={tmp_path}/a_file/below"], tmp_path)
    with pytest.raises(ValueError, match=r"trainer\.lr"):
        submit.check_overrides(["model.path=/models/only/there", "trainer.lr=-1"], tmp_path)


def test_own_rewards_are_found_in_the_working_directory(submit: Any, tmp_path: Path) -> None:
    (tmp_path / "own_rewards.py").write_text("def nothing(problem, completions_G, context):\n    return []\n")
    submit.check_overrides(
        ["run_dir=/tmp/x", "reward.components.own={name: 'own_rewards:nothing', weight: 1.0}"], tmp_path
    )
    with pytest.raises(ValueError, match="own_rewards:something"):
        submit.check_overrides(["reward.components.own={name: 'own_rewards:something', weight: 1.0}"], tmp_path)


def test_token_must_exist_and_be_private(submit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with pytest.raises(ValueError, match=r"no token in .*/.ray/auth_token(.|\n)*ray get-auth-token --generate"):
        submit.check_token()
    file = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "token")
    file.write_text("0" * 64)
    file.chmod(0o644)
    with pytest.raises(ValueError, match=f"chmod 600 {file}"):
        submit.check_token()
    file.chmod(0o600)
    submit.check_token()
    assert submit.os.environ["RAY_AUTH_TOKEN_PATH"] == str(file), "the check of the overrides changes the folder"


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        (200, r"accepts jobs without a token(.|\n)*RAY_AUTH_MODE=token .*ray start --head --dashboard-host 127.0.0.1"),
        (404, "is not a Ray dashboard"),
    ],
)
def test_dashboard_without_a_token_or_another_server_is_refused(
    submit: Any, dashboard: Any, status: int, complaint: str
) -> None:
    dashboard.status = status
    with pytest.raises(ValueError, match=complaint):
        submit.check_server(f"http://127.0.0.1:{dashboard.server_port}")


def test_dashboard_with_a_token_is_accepted(submit: Any, dashboard: Any) -> None:
    dashboard.status = 401
    submit.check_server(f"http://127.0.0.1:{dashboard.server_port}/")
    dashboard.server_close()
    dashboard.shutdown()
    with pytest.raises(ValueError, match=r"no Ray dashboard at http(.|\n)*On the head node"):
        submit.check_server(f"http://127.0.0.1:{dashboard.server_port}")
    with pytest.raises(ValueError, match="not the URL"):
        submit.check_server("ray://head:10001")


def test_plain_folder_is_packed_without_runs_environments_and_caches(submit: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    kept = ["own_rewards.py", "conf/data/own.yaml"]
    for name in [*kept, "runs/a/config.yaml", ".venv/bin/python", ".ruff_cache/x", "pkg/__pycache__/a.pyc", "wandb/y"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    assert names_in(submit.pack(folder, tmp_path / "a.zip")) == kept
    (tmp_path / "empty").mkdir()
    assert names_in(submit.pack(tmp_path / "empty", tmp_path / "b.zip")), "Ray takes no package without a file"


def test_files_that_git_ignores_are_not_packed(submit: Any, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    for name in (".gitignore", "a.py", "ignored/data", "gone.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("ignored/\n")
    for command in (["init", "-q"], ["add", "gone.py"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    (folder / "gone.py").unlink()
    (folder / "link").symlink_to("nowhere")
    assert names_in(submit.pack(folder, tmp_path / "a.zip")) == [".gitignore", "a.py"]
    assert names_in(submit.pack(folder / "ignored", tmp_path / "b.zip")) == ["data"]


def test_folder_that_is_too_large_is_refused_with_its_largest_entries(submit: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "all.parquet").open("wb") as file:
        file.truncate(101 * 2**20)
    with pytest.raises(ValueError, match=r"holds 101 MB, more than the limit of 100 MB \(data 101 MB"):
        submit.pack(tmp_path, tmp_path / "a.zip")


class FakeClient:
    """A job whose log connection breaks once."""

    def __init__(self, status: JobStatus, code: int | None, last_line: str) -> None:
        self.chunks = ["one\n", "two\n", last_line]
        self.broken = False
        self.info = SimpleNamespace(status=status, driver_exit_code=code, message="why")

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for number, chunk in enumerate(self.chunks):
            if number == 2 and not self.broken:
                self.broken = True
                raise RuntimeError("connection closed")
            yield chunk

    def get_job_info(self, job: str) -> Any:
        return self.info


@pytest.mark.parametrize(
    ("status", "driver", "last_line", "code"),
    [
        (JobStatus.SUCCEEDED, 0, "done\n", 0),
        (JobStatus.FAILED, 1, "failed\n", 1),
        (JobStatus.FAILED, 2, "mistakes\n", 1),
        (JobStatus.FAILED, 75, "saved\n", 75),
        (
            JobStatus.STOPPED,
            None,
            "r1ray: asked to stop; everything is saved: to continue, run the same command with resume=auto\n",
            75,
        ),
        (JobStatus.STOPPED, None, "step 3\n", 1),
        (JobStatus.FAILED, None, "", 1),
    ],
)
def test_exit_code_reports_the_end_and_every_line_is_printed_once(
    submit: Any, status: JobStatus, driver: int | None, last_line: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asyncio.run(submit.follow(FakeClient(status, driver, last_line), "job")) == code
    printed = capsys.readouterr()
    assert printed.out == f"one\ntwo\n{last_line}"
    assert ("resume=auto" in printed.err) == (code == 75)


def test_saved_message_equals_the_message_of_main(submit: Any) -> None:
    assert submit.SAVED in (ROOT / "r1ray/main.py").read_text()


def test_following_ends_when_the_dashboard_is_unreachable(submit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(job: str) -> Any:
        raise ConnectionError("refused")

    client = FakeClient(JobStatus.RUNNING, None, "")
    client.get_job_info = gone  # type: ignore[method-assign]
    monkeypatch.setattr(submit, "LOST_S", 0.0)
    with pytest.raises(ValueError, match="out of reach"):
        asyncio.run(submit.follow(client, "job"))
