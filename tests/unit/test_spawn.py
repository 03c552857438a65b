"""The log file of an actor."""

import subprocess
import sys
from pathlib import Path

from r1ray.actors.spawn import MAX_LOG_BYTES

PRINTS_WITHOUT_END = """
import os, sys
from types import SimpleNamespace
import ray
from r1ray.actors.spawn import MAX_LOG_BYTES, as_actor

ray.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "node")
worker = as_actor(type("Worker", (), {}))(sys.argv[1], {})
print("first", flush=True)
os.truncate(sys.argv[1], MAX_LOG_BYTES + 1)
worker.heartbeat()
print("last", flush=True)
"""


def test_a_log_is_cut_at_a_heartbeat_and_keeps_its_begin_and_what_comes_last(tmp_path: Path) -> None:
    log = tmp_path / "reward-0.log"
    subprocess.run([sys.executable, "-c", PRINTS_WITHOUT_END, str(log)], check=True, timeout=60)
    assert MAX_LOG_BYTES // 2 < log.stat().st_size < MAX_LOG_BYTES // 2 + 200
    with log.open("rb") as file:
        assert file.read(6) == b"first\n"
        file.seek(MAX_LOG_BYTES // 2)
        assert b"was cut here\nlast\n" in file.read()
