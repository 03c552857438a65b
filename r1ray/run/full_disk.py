"""One clear error for a disk that is full, whoever notices it: the driver, or a worker whose library has its own words for it."""

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from r1ray.failures import WorkerFailed

FULL = (errno.ENOSPC, errno.EDQUOT)
UNWRITTEN = ("unexpected pos", "PytorchStreamWriter failed")
"""What torch says of a file that it could not write, whatever the reason."""
PROBE_BYTES = 2**20


@contextmanager
def naming_full_disk(folder: Path, *, what: str, kept: str) -> Generator[None]:
    """Raises OSError with the remedy when the body cannot write to `folder`.

    Args:
        what: what is being written.
        kept: what is not lost.
    """
    try:
        yield
    except OSError as error:
        raise _with_remedy(error, folder, what=what, kept=kept) from error
    except WorkerFailed as error:
        number = _number_of(error, folder)
        if number is None:
            raise
        raise _with_remedy(OSError(number, os.strerror(number)), folder, what=what, kept=kept) from error


def _number_of(error: WorkerFailed, folder: Path) -> int | None:
    """The errno of a worker's error, if it could not write; None for another cause."""
    text = str(error)
    for number in FULL:
        if os.strerror(number) in text or f"os error {number})" in text:
            return number
    if any(sign in text for sign in UNWRITTEN):
        return _cannot_write(folder) or errno.EIO
    return None


def _cannot_write(folder: Path) -> int | None:
    probe = folder / ".probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def _with_remedy(error: OSError, folder: Path, *, what: str, kept: str) -> OSError:
    try:
        room = f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB free"
    except OSError:
        room = "the free space is unknown"
    return OSError(
        error.errno or errno.EIO,
        f"{what} could not be written to {folder}: {error.strerror or error} ({room}; {kept}). Make room, or choose "
        "another run_dir, a smaller checkpoint.keep or a larger checkpoint.every_steps; "
        "resume=auto continues from the last complete checkpoint",
    )
