"""Rows of a dataset, read lazily: from a local .jsonl, .json or .parquet file, a folder of such files, or the hub."""

import codecs
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl", ".json", ".parquet")
PACKED = 4
"""Approximate bytes of text per byte of parquet."""


def is_local(path: str) -> bool:
    """Whether `path` is on this disk; a hub name is `owner/name` or `name`, which exists nowhere here and looks like no file."""
    return Path(path).expanduser().exists() or path.startswith(("/", ".", "~")) or Path(path).suffix in SUFFIXES


def read_rows(path: str, *, subset: str | None, split: str) -> Iterator[Any]:
    """Rows as they are in the file: mappings, or lists where a row is a list (Open-Reasoner-Zero).

    In a folder the files of the split are read in order of their names (`train-00000-of-00002.parquet`, `train.jsonl`,
    `train2.jsonl`, `train/...`); a folder in which no file belongs to a split is read whole.

    Raises:
        ValueError: the path does not exist, the file cannot be parsed, or the hub cannot load the dataset.
    """
    if not is_local(path):
        yield from _hub_rows(path, subset=subset, split=split)
        return
    for file in _files(path, split):
        yield from _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)


def size_of(path: str, *, split: str) -> int:
    """Bytes of the split at a local path; for parquet an estimate of the unpacked size. Raises ValueError as `read_rows` does."""
    return sum(file.stat().st_size * (PACKED if file.suffix == ".parquet" else 1) for file in _files(path, split))


def _files(path: str, split: str) -> list[Path]:
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(
            f"{path} does not exist; give a local .jsonl, .json or .parquet file, a folder of them, or a hub name"
        )
    files = [place] if place.is_file() else _files_of_split(place, split)
    for file in files:
        if file.suffix not in SUFFIXES:
            raise ValueError(f"{file} is not a {', '.join(SUFFIXES)} file")
    return files


def _files_of_split(folder: Path, split: str) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)
    if not files:
        raise ValueError(f"{folder} holds no {', '.join(SUFFIXES)} file")
    named = [file for file in files if file.parent.name == split or re.match(rf"{re.escape(split)}\d*[-._]", file.name)]
    return named or files


def _json_rows(file: Path) -> Iterator[Any]:
    with file.open("rb") as lines:  # bytes, so that text that is not UTF-8 is reported with its line too
        if file.suffix == ".json" and lines.read(64).lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:1] == b"[":
            lines.seek(0)
            yield from _parse(lines.read(), file=file, line=1)
            return
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _parse(line, file=file, line=number)


def _parse(content: bytes, *, file: Path, line: int) -> Any:
    """`line`: the line of the file in which the content begins."""
    try:
        return json.loads(content.decode("utf-8-sig").rstrip())
    except ValueError as error:
        what = str(error)
        if isinstance(error, json.JSONDecodeError):
            line, what = line + error.lineno - 1, f"{error.msg} at character {error.colno}"
        raise ValueError(f"{file}, line {line}: this is not JSON ({what}); correct or remove it") from error


def _parquet_rows(file: Path) -> Iterator[Any]:
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise ValueError(f"{file} cannot be read as parquet: {error}") from error


def _hub_rows(path: str, *, subset: str | None, split: str) -> Iterator[Any]:
    datasets: Any = importlib.import_module("datasets")
    try:
        yield from datasets.load_dataset(path, subset, split=split)
    # RuntimeError: a dataset that is built by its own script, which the library no longer runs.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"the dataset {path!r} (subset {subset}, split {split}) cannot be loaded: {error} Check the name, the subset and "
            "the split; without a network, download it elsewhere and give the folder as path"
        ) from error
