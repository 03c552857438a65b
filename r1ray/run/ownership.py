"""Whether other users can put files into a run directory. A resume loads what is there, and so would load what they put in.

    owned by another user       refused, unless it is root: who owns a folder can replace everything in it
    writable by every user      refused
    writable by its group       accepted: shared storage for a project

What counts is the owner and mode that a new folder of ours gets there: root on NFS becomes another user, and some mounts (SMB,
FUSE) show one owner or mode for every file. Modes that a mount has fixed say nothing, so they are not compared.
"""

import os
import stat
import tempfile
from pathlib import Path

from r1ray.run.directory import RunDir

ROOT = 0


def danger_in(run: RunDir) -> tuple[str, str] | None:
    """(what is wrong, the remedy); None if no other user can write there. Raises OSError if this process cannot write either."""
    ours = new_folder_in(run.path)
    patterns = ("stages", "stages/*", "stages/*/checkpoints", "stages/*/checkpoints/step_*")
    for folder in [run.path, *(path for pattern in patterns for path in sorted(run.path.glob(pattern)))]:
        there = folder.stat()
        if there.st_uid not in (ours.st_uid, ROOT):
            rule = f"{folder} belongs to another user (uid {there.st_uid}), who could replace what a resume loads"
            return rule, f"chown -R {ours.st_uid} {run.path} if you trust its content, or name=ANOTHER for a new run"
        if there.st_mode & stat.S_IWOTH and not ours.st_mode & stat.S_IWOTH:
            rule = f"every user can write to {folder}, and could replace what a resume loads"
            return rule, f"chmod -R o-w {run.path}, or a folder within it: run_dir={run.path}/NAME"
    return None


def new_folder_in(folder: Path) -> os.stat_result:
    """Owner and mode of a private folder that this process makes there, and removes."""
    made = tempfile.mkdtemp(prefix=".probe-", dir=folder)
    try:
        return os.stat(made)
    finally:
        os.rmdir(made)
