"""The driver ends, with the cause, when Ray's raylet or GCS is gone."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1ray.run import lifeline
from r1ray.run.lifeline import Lifeline, cluster_loss, local_loss, refuse_dead_address


def start(folder: Path, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    link = folder / program
    link.symlink_to("/bin/sleep")
    return subprocess.Popen([str(link), *arguments], start_new_session=True)


def test_the_process_that_ended_is_named(tmp_path: Path) -> None:
    names = ("raylet", "gcs_server", "log_monitor")
    raylet, gcs, monitor = processes = [start(tmp_path, name, "100") for name in names]
    (tmp_path / "failed").mkdir()
    of_failed_start = start(tmp_path / "failed", "raylet", "0")
    of_failed_start.wait()
    lost = local_loss([of_failed_start, *processes], logs=tmp_path)
    assert lost() is None
    monitor.kill()
    monitor.wait()
    assert lost() is None, "Ray goes on without its log monitor"
    gcs.kill()
    gcs.wait()
    assert lost() == f"Ray's GCS server (process {gcs.pid}) was ended by SIGKILL"
    (tmp_path / "raylet.out").write_text("I) Agent process with name dashboard_agent exited, exit code 0.\n")
    raylet.send_signal(signal.SIGTERM)
    raylet.wait()
    assert "SIGTERM because its dashboard agent had ended" in str(lost())
    raylet.signalled = gcs.signalled = True  # type: ignore[attr-defined]
    assert lost() is None, "ray.shutdown ends them too"


def test_a_cluster_may_be_away_for_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        refuse_dead_address(address)
        lost = cluster_loss(address, patience_s=0.2)
        assert lost() is None
    assert lost() is None
    time.sleep(0.25)
    assert address in str(lost()) and "refused" in str(lost())
    with pytest.raises(
        ConnectionError, match=rf"no Ray cluster answers at {address} \(Connection refused\).*RAY_ADDRESS"
    ):
        refuse_dead_address(address, within_s=0)
    for other in ("auto", "local", "ray://127.0.0.1:1"):
        refuse_dead_address(other, within_s=0)
    assert lifeline.connect_error("[::1]:1") is not None


def test_it_ends_a_process_whose_main_thread_waits() -> None:
    """Also the children that have sessions of their own."""
    bystander = subprocess.Popen(["sleep", "100"], start_new_session=True)
    code = f"""
import time
from types import SimpleNamespace
from r1ray.run.lifeline import Lifeline, end_process
other = SimpleNamespace(pid={bystander.pid})
with Lifeline(lambda: "Ray is gone", end=lambda why: end_process(why, code=75, processes=[other])):
    time.sleep(100)
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (75, "Ray is gone\n") and time.monotonic() - begun < 20
    assert bystander.wait(5) == -signal.SIGKILL


def test_nothing_ends_once_the_body_has() -> None:
    causes: list[str] = []
    with Lifeline(lambda: None, end=causes.append, poll_s=0.01):
        time.sleep(0.05)
    assert not causes
