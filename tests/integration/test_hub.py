"""Datasets through the hub's own loader, which also reads local folders: the same rows, and errors that say what to do."""

import shutil
from pathlib import Path

import datasets
import pytest

from r1ray.config import SourceConfig
from r1ray.data import files
from r1ray.data.sources import load_source

pytestmark = pytest.mark.integration
DATA = Path(__file__).parents[1] / "fixtures" / "datasets"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, a cache of its own, and every path taken for a hub name."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(files, "is_local", lambda path: False)


@pytest.mark.parametrize("name", ["dapo", "gsm8k", "math", "countdown_hub"])
def test_rows_from_the_hub_read_like_rows_from_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "repo").mkdir()
    shutil.copy(DATA / f"{name}.jsonl", tmp_path / "repo" / "train.jsonl")
    config = SourceConfig(source=name, path=str(tmp_path / "repo"))
    from_hub = load_source("mix", config)
    monkeypatch.undo()
    assert from_hub == load_source("mix", config)


@pytest.mark.parametrize(
    ("path", "split", "cause"), [("nobody/nothing", "train", "nobody/nothing"), (None, "tset", "tset")]
)
def test_what_cannot_be_loaded_says_why_and_what_to_do(path: str | None, split: str, cause: str, tmp_path: Path):
    if path is None:
        shutil.copy(DATA / "gsm8k.jsonl", tmp_path / "train.jsonl")
    with pytest.raises(ValueError, match="Check the name, the subset and the split") as error:
        load_source("mix", SourceConfig(source="gsm8k", path=path or str(tmp_path), split=split))
    assert cause in str(error.value)
