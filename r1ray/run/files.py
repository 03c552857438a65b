"""Writing and reading of a run's files so that a crash, a power cut or a full disk never leaves half of something.

After a power cut a file that was not synced may be empty, and a name in a folder that was not synced may be gone.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, cast


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never a part of one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        sync_file(temporary)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


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
        with path.open("rb") as file:  # bytes: a line may be cut within a character
            for line in file:
                if (row := _row(line)) is not None:
                    rows.append(row)
    return rows


def drop_torn_end(path: Path) -> int:
    """Remove what a crash left after the last whole line, so that the next line is not appended to it; returns its bytes."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    end = len(content)
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        if content[end - 1 : end] == b"\n" and _row(content[start:end]) is not None:
            break
        end = start
    if end < len(content):
        os.truncate(path, end)
        sync_file(path)
    return len(content) - end


def _row(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        row = json.loads(line)
        return cast("dict[str, Any]", row) if isinstance(row, dict) else None
    return None
