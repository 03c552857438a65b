"""Sealed folders: a manifest with the sha256 of every file, written after all of them are on the disk.

Checkpoints and the references that replaced the first one are such folders. They are written under a temporary name, sealed, then
renamed: a folder under its final name is complete, whatever ended the process or the machine.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1ray.run.files import make_folder, sync_file, sync_folder
from r1ray.run.full_disk import naming_full_disk

MANIFEST = "manifest.json"
WRITING = ".writing-"
"""Prefix of a folder that is being written. It is never loaded under such a name."""
HASHING_THREADS = 8


@contextmanager
def sealed(final: Path) -> Generator[Path]:
    """Yields a temporary folder for the body to write into; it is sealed and gets its final name when the body has ended.

    Raises OSError if it could not be written (a full disk).
    """
    make_folder(final.parent)
    temporary = final.with_name(f"{WRITING}{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with naming_full_disk(final.parent, what=final.name, kept="the checkpoints are untouched"):
            temporary.mkdir()
            yield temporary
            seal(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync_folder(final.parent)


def seal(folder: Path) -> None:
    """Write the manifest of all files below `folder`, after all of them are on the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        entries = dict(
            zip([str(path.relative_to(folder)) for path in files], pool.map(_sync_and_hash, files), strict=True)
        )
    for inner in folder.rglob("*"):
        if inner.is_dir():
            sync_folder(inner)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": entries}, indent=1))
    sync_file(manifest)
    sync_folder(folder)


def find_damage(folder: Path, *, contents_of: Collection[str] | None = None) -> str | None:
    """Why this folder must not be used; None if every file is as the manifest says.

    Args:
        contents_of: the files whose content is read; of the others only the size is compared, which takes no time. None: all files.
    """
    try:
        entries: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["files"]
        sizes = {name: int(entry["bytes"]) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is missing or unreadable ({error})"
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
    read = [name for name in entries if contents_of is None or name in contents_of]
    try:
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            hashes = list(pool.map(_hash, [folder / name for name in read]))
    except OSError as error:
        return f"a file cannot be read ({error})"
    damaged = [name for name, found in zip(read, hashes, strict=True) if found != entries[name].get("sha256")]
    return f"{', '.join(damaged)}: the content differs from what was written" if damaged else None


def _sync_and_hash(path: Path) -> dict[str, Any]:
    sync_file(path)
    return {"sha256": _hash(path), "bytes": path.stat().st_size}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
