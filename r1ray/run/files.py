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
