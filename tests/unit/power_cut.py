"""A disk that loses everything that was not synced, as the worst file system after a power cut."""

import os
import shutil
from pathlib import Path

import pytest


class PowerCut(BaseException):
    """The machine is off: nothing runs after it, not even cleanup."""


class Disk:
    """Records what `os.fsync` has put on the disk below `root`; `cut` leaves exactly that.

    What was appended to a file since it was last synced is lost; a file that was written otherwise comes back empty. A name that
    its folder did not have when that was last synced is gone, with all that is below it.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, syncs: int | None = None) -> None:
        self.root, self.left = root, syncs
        self.files: dict[int, bytes] = {}
        """{inode: the content when it was synced}."""
        self.names: dict[int, dict[str, int]] = {}
        """{inode of a folder: {name: inode} when it was synced}."""
        self._remember_folder(root)
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        """The power fails before the sync after the last allowed one."""
        if self.left is not None:
            if not self.left:
                raise PowerCut
            self.left -= 1
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._remember_folder(path)
        else:
            self.files[path.stat().st_ino] = path.read_bytes()

    def _remember_folder(self, path: Path) -> None:
        self.names[path.stat().st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}

    def cut(self) -> list[Path]:
        """Lose what was not synced; returns the files and folders that were lost or emptied."""
        lost: list[Path] = []
        folders = [self.root]
        while folders:
            folder = folders.pop()
            known = self.names.get(folder.stat().st_ino, {})
            for entry in list(os.scandir(folder)):
                path = Path(entry.path)
                if known.get(entry.name) != entry.inode():
                    lost.append(path)
                    shutil.rmtree(path) if entry.is_dir(follow_symlinks=False) else path.unlink()
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif not entry.is_symlink():
                    content, synced = path.read_bytes(), self.files.get(entry.inode(), b"")
                    if content != synced:
                        lost.append(path)
                        path.write_bytes(synced if content.startswith(synced) else b"")
        return lost
