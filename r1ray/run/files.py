"""Writing and reading of a run's files so that a crash or a full disk never leaves half of something."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never a part of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def make_folder(path: Path) -> None:
    """Create a folder and its parents so that a power cut does not remove them again."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        sync_folder(folder.parent)


def sync_file(path: Path) -> None:
    """Return when the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, text: str, *, sync: bool = False) -> None:
    """Append all of `text` or nothing: after an OSError (a full disk) the file is as it was, so that a retry doubles nothing.

    Args:
        sync: return only when the text is on the disk.
    """
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        os.truncate(path, size)
        raise


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one per line; [] if there is no such file. A line that a crash cut short is left out."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        # Not splitlines: a completion may hold U+2028 and the like, which JSON leaves as they are.
        with path.open(newline="\n") as file:
            for line in file:
                with suppress(ValueError):
                    rows.append(json.loads(line))
    return rows
