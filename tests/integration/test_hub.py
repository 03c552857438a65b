"""Datasets through the hub's loader, which also reads local folders: the same rows, and errors with a remedy."""

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
    """No network, an empty cache, and every path treated as a hub name."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(files, "is_local", lambda path: False)


@pytest.mark.parametrize("name", ["dapo", "gsm8k", "math", "countdown_hub"])
def test_rows_from_the_hub_equal_rows_from_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "repo").mkdir()
    shutil.copy(DATA / f"{name}.jsonl", tmp_path / "repo" / "train.jsonl")
    config = SourceConfig(source=name, path=str(tmp_path / "repo"))
    from_hub = load_source("mix", config)
    monkeypatch.undo()
    assert from_hub == load_source("mix", config)


@pytest.mark.parametrize(
    ("path", "split", "cause"), [("nobody/nothing", "train", "nobody/nothing"), (None, "tset", "tset")]
)
def test_dataset_that_cannot_be_loaded_is_reported_with_cause_and_remedy(
    path: str | None, split: str, cause: str, tmp_path: Path
):
    if path is None:
        shutil.copy(DATA / "gsm8k.jsonl", tmp_path / "train.jsonl")
    with pytest.raises(ValueError, match="Check the name, the subset and the split") as error:
        load_source("mix", SourceConfig(source="gsm8k", path=path or str(tmp_path), split=split))
    assert cause in str(error.value)
