"""A full disk is named once, with the remedy, whichever library noticed it, and nothing saved before is lost."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from r1ray.failures import TrainersLost, WorkerFailed
from r1ray.run import full_disk
from r1ray.run.checkpoint import Checkpoints, Progress
from r1ray.run.seal import sealed

TORCH = "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"
SAFETENSORS = "SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)"
WORDS = {
    "torch": (TORCH, errno.EIO),
    "torch while it writes": ("RuntimeError: PytorchStreamWriter failed writing file data/3: file write failed", errno.EIO),
    "safetensors": (SAFETENSORS, errno.ENOSPC),
    "safetensors and a quota": ("SafetensorError: I/O error: quota (os error 122)", errno.EDQUOT),
    "Python": ("OSError: [Errno 28] No space left on device: '/runs/a'", errno.ENOSPC),
    "a quota": ("OSError: [Errno 122] Disk quota exceeded", errno.EDQUOT),
}  # fmt: skip


def opened(folder: Path) -> Checkpoints:
    return Checkpoints(folder, keep=2, event=lambda kind, **fields: None)


def save(folder: Path, step: int, error: Exception | None = None) -> None:
    with opened(folder).writing(Progress(step=step, updates=step, version=step)) as path:
        (path / "part").write_text(f"state {step}")
        if error:
            raise error


@pytest.mark.parametrize("case", WORDS, ids=WORDS)
def test_words_of_a_worker_for_a_full_disk(case: str, tmp_path: Path) -> None:
    words, number = WORDS[case]
    save(tmp_path, 5)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        OSError, match=r"checkpoint of step 10 could not be written .*step_000005 is untouched.*Make room"
    ) as e:
        save(tmp_path, 10, WorkerFailed(f"policy-0: {words}"))
    assert e.value.errno == number and "GiB free" in str(e.value)
    assert "unexpected pos" not in str(e.value)
    assert sorted(tmp_path.rglob("*")) == before
    found = opened(tmp_path).newest_valid()
    assert found and found.progress.step == 5


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_the_reason_is_looked_for_when_torch_gives_none(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError) as caught, sealed(tmp_path / "updates_000004") as folder:
        assert folder.exists()
        monkeypatch.setattr(full_disk.os, "fsync", full)
        raise WorkerFailed(f"policy-0: {TORCH}")
    assert caught.value.errno == number and os.strerror(number) in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        WorkerFailed("policy-0: RuntimeError: shapes differ"),
        TrainersLost("policy-1 died: No space left on device in /dev/shm"),
        ValueError("unexpected pos"),
    ],
    ids=["a bug", "a lost rank", "an error of the driver"],
)
def test_another_error_stays_as_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        save(tmp_path, 10, error)
    assert caught.value is error and not list(tmp_path.iterdir())


def test_links_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that has no room for a name; the checkpoint is whole, and a resume derives the links again."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(tmp_path, 5)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "symlink_to", full)
        with pytest.raises(
            OSError, match=r"latest or best could not be written .*checkpoints are whole.*Make room"
        ) as e:
            save(tmp_path, 10)
    assert e.value.errno == errno.ENOSPC
    found = opened(tmp_path).newest_valid()
    assert found and found.progress.step == 10 and os.readlink(tmp_path / "latest") == "step_000010"


def test_what_torch_really_says(tmp_path: Path) -> None:
    """With a limit on the size of files, which ends a write as a full disk does."""
    code = "import sys, torch; torch.save({'a': torch.zeros(2**20)}, sys.argv[1])"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))

    done = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {code}", tmp_path / "a"],
        preexec_fn=limited,
        capture_output=True,
        text=True,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode and any(sign in done.stderr for sign in full_disk.UNWRITTEN), last
    with pytest.raises(OSError, match="checkpoint of step 1 could not be written"):
        save(tmp_path / "c", 1, WorkerFailed(f"policy-0: {last}"))
