"""One GPU that engine and trainer share: `scale=one_gpu` from the command line, and weights through CUDA IPC. Skipped without a
GPU.

Tests of the same code without a GPU: `tests/unit/test_ipc.py` and `test_sleep.py`, `tests/integration/test_sync.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from r1ray.sync.communicator import connect, open_store
from r1ray.sync.layout import Rendezvous

pytestmark = pytest.mark.gpu
REPO = Path(__file__).parents[2]
SIZES = (1 << 20, 100, 3 << 20, 16)

READER = f"""
import sys, torch
from r1ray.sync.communicator import connect
from r1ray.sync.layout import Rendezvous
link = connect(Rendezvous(backend="ipc", host="127.0.0.1", port=int(sys.argv[1]), tag="t", world_size=2, timeout_s=60.0), rank=1)
for size in {SIZES}:
    flat = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
    link.broadcast(flat)
    print(int(flat.long().sum()), flush=True)
print(link.agree(True), flush=True)
"""


def test_gpu_tensor_arrives_in_another_process() -> None:
    store = open_store("127.0.0.1", timeout_s=60)
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(store.port)], stdout=subprocess.PIPE, text=True, cwd=REPO
    )
    rendezvous = Rendezvous(backend="ipc", host="127.0.0.1", port=store.port, tag="t", world_size=2, timeout_s=60.0)
    link = connect(rendezvous, rank=0, store=store)
    sums = []
    for size in SIZES:
        bucket = torch.randint(256, (size,), dtype=torch.uint8, device="cuda")
        sums.append(str(int(bucket.long().sum())))
        link.broadcast(bucket)
    assert link.agree(True)
    assert process.communicate(timeout=60)[0].split() == [*sums, "True"]
    link.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps with KL to a reference; the engine gets little memory because the model is small."""
    cwd = tmp_path_factory.mktemp("one_gpu")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "r1ray.main", "scale=one_gpu", "name=shared", "steps=2", "log.wandb=disabled"),
            *("algo.prompts_per_step=8", "algo.group_size=4", "algo.kl_coef=0.01", "trainer.lr=1e-4"),
            *("eval.sets.countdown.args.num_problems=16", "eval.every_steps=1", "checkpoint.every_steps=2"),
            "rollout.engine_args.kv_cache_memory_bytes=1073741824",
        ],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return cwd / "runs" / "shared"


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "stages/rl/metrics.jsonl").read_text().splitlines()]


def test_engine_and_trainer_alternate_on_one_gpu(run: Path) -> None:
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row in rows[1:]:
        assert row["sync/canary_gap"] < 0.1 and row["updates_skipped"] == 0
    events = [json.loads(line)["kind"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert not {"worker_restarted", "sync_failed", "watchdog"} & set(events)


def test_engine_has_the_trained_weights_after_every_sleep(run: Path) -> None:
    """Completions of the second step were sampled after the engine had slept, and the trainer agrees with their log-probs."""
    assert rows_of(run)[2]["mismatch/logprob_gap/mean"] < 0.1
