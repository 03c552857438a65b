"""The wheel contains everything from the checkout: code, conf/ and the files of the built-in model."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was unpacked, as pip would do it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def files_under(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_contains_the_package_its_data_and_conf(installed: Path) -> None:
    assert files_under(installed / "r1ray") == files_under(ROOT / "r1ray") | {
        f"conf/{name}" for name in files_under(ROOT / "conf")
    }
    assert {path.name.split("-")[0] for path in installed.iterdir()} == {"r1ray"}, "only the package"


def test_installed_command_composes_its_own_conf(installed: Path, tmp_path: Path) -> None:
    marker = "name_of_the_wheels_conf"
    config = installed / "r1ray" / "conf" / "config.yaml"
    config.write_text(config.read_text().replace("name: r1_zero", f"name: {marker}"))
    done = subprocess.run(
        [sys.executable, "-m", "r1ray.main", "--cfg", "job"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"name: {marker}" in done.stdout
    assert list(tmp_path.iterdir()) == [], "printing the configuration writes nothing"
