"""Weight sync from the real trainer: two DeepSpeed ranks with ZeRO 0 and 3, to vLLM engines, with the same push as in a run."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
from sync_parts import PROMPTS, config, greedy, greedy_tokens, load, sampling_gap, start_engines
from tiny_models import VOCAB_SIZE, make_tiny_model, move_weights

import r1ray.algo
from r1ray.actors.group import ActorGroup
from r1ray.actors.trainer import TrainerWorker
from r1ray.actors.trainer_group import TrainerGroup
from r1ray.actors.weight_sync import SyncFailed, WeightSync
from r1ray.algo.base import Objective
from r1ray.algo.sft import Sft
from r1ray.data.pack import pack
from r1ray.types import Sample

pytestmark = pytest.mark.integration
START_S = 300.0
SAMPLES = [
    Sample(
        token_ids_T=np.arange(10 + i, 40 + i, dtype=np.int32),
        mask_T=np.r_[0, np.ones(29)].astype(np.float32),
        rollout_logprobs_T=np.zeros(30, np.float32),
        temperature=1.0,
        group_id="g",
        index=i,
    )
    for i in range(4)
]


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@contextmanager
def trainers_of(
    folder: Path, *overrides: str, zero_stage: int, objective: Objective | None = None
) -> Iterator[ActorGroup]:
    """Two ranks with the weights of `folder`."""
    cfg = config("trainer.num_workers=2", f"trainer.zero_stage={zero_stage}", *overrides)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    actor = ray.remote(TrainerWorker).options(num_cpus=1, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    handles = [
        actor.remote(
            rank=rank,
            world_size=2,
            master_addr="127.0.0.1",
            master_port=port,
            cfg=cfg,
            model_path=str(folder),
            objective=objective or r1ray.algo.make(cfg.algo, max_response_length=cfg.rollout.max_response_length),
            total_updates=1,
        )
        for rank in range(2)
    ]
    group = ActorGroup("policy", handles)
    group.gather([handle.ping.remote() for handle in handles], what="start", timeout_s=START_S)
    try:
        yield group
    finally:
        group.shutdown()


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tied", "untied"])
def test_engines_get_the_weights_of_two_deepspeed_ranks(tmp_path: Path, tied: bool) -> None:
    folder = make_tiny_model(tmp_path / "model", tied=tied)
    cfg = config("rollout.num_workers=2", "trainer.num_workers=2")
    rollouts = start_engines([folder, folder], cfg)
    model = load(folder)
    try:
        for version, zero_stage in enumerate((0, 3)):
            move_weights(model, seed=zero_stage, scale=0.05)
            truth = [greedy(model, prompt) for prompt in PROMPTS]
            moved = make_tiny_model(tmp_path / f"zero{zero_stage}", tied=tied)
            model.save_pretrained(moved)
            for engine in rollouts.handles:
                assert greedy_tokens(engine) != truth
                assert sampling_gap(engine, model, temperature=1.0) > 0.1
            with trainers_of(moved, zero_stage=zero_stage) as trainers:
                sync = WeightSync(trainers, rollouts, cfg=cfg, vocab_size=VOCAB_SIZE)
                assert sync.push(version)["sync/canary_gap"] < 1e-4
                for engine in rollouts.handles:
                    assert greedy_tokens(engine) == truth
                    assert sampling_gap(engine, model, temperature=1.0) < 1e-4
                    assert sampling_gap(engine, model, temperature=0.6) < 1e-4
                if tied and zero_stage == 3:
                    check_dead_engine_leaves_no_rank_gathering(sync, trainers, rollouts)
    finally:
        rollouts.shutdown()


def test_engines_get_the_merged_weights_of_adapters(tmp_path: Path) -> None:
    """Initially these are the weights of the base model; after an update, those of a folder with the merged weights."""
    other, base = make_tiny_model(tmp_path / "other", seed=5), make_tiny_model(tmp_path / "base")
    lora = ["model.lora={rank: 4, alpha: 8, targets: all-linear}", "trainer.lr=0.03", "trainer.logprob_gap_limit=inf"]
    cfg = config("rollout.num_workers=1", "trainer.num_workers=2", *lora)
    rollouts = start_engines([other], cfg)
    (engine,) = rollouts.handles
    try:
        for zero_stage in (0, 3):
            assert sampling_gap(engine, load(base), temperature=1.0) > 0.1
            with trainers_of(base, *lora, zero_stage=zero_stage, objective=Sft()) as trainers:
                sync = WeightSync(trainers, rollouts, cfg=cfg, vocab_size=VOCAB_SIZE)
                assert sync.push(2 * zero_stage)["sync/canary_gap"] < 1e-4
                assert greedy_tokens(engine) == [greedy(load(base), prompt) for prompt in PROMPTS]
                policy = TrainerGroup(trainers, cfg=cfg.trainer)
                policy.update(pack(SAMPLES, weights=Sft().weights(SAMPLES, {}), num_ranks=2, max_tokens=64))
                assert sync.push(2 * zero_stage + 1)["sync/canary_gap"] < 1e-4
                policy.export_hf(str(tmp_path / f"zero{zero_stage}"))
            merged = load(tmp_path / f"zero{zero_stage}")
            assert merged.state_dict().keys() == load(base).state_dict().keys()
            assert greedy_tokens(engine) == [greedy(merged, prompt) for prompt in PROMPTS]
            assert sampling_gap(engine, merged, temperature=1.0) < 1e-4
    finally:
        rollouts.shutdown()


def check_dead_engine_leaves_no_rank_gathering(sync: WeightSync, trainers: ActorGroup, rollouts: ActorGroup) -> None:
    """ZeRO-3 ranks gather every weight together: after a failed transfer rank 0 must still take part in all gathers."""
    ray.get(rollouts.handles[1].sabotage.remote("die"), timeout=60)
    failed: list[SyncFailed] = []
    sync.on_failure = failed.append
    with pytest.raises(SyncFailed, match="rollout-1 died during 'ping before a transfer'"):
        sync.push(2)
    transfer = str(failed[0])
    assert "policy-0 failed" in transfer and "rollout-1 died" in transfer
    assert "policy-1" not in transfer and "did not finish" not in transfer
    alone = WeightSync(
        trainers,
        ActorGroup("rollout", rollouts.handles[:1]),
        cfg=config("trainer.num_workers=2"),
        vocab_size=VOCAB_SIZE,
    )
    assert alone.push(2)["sync/canary_gap"] < 1e-4
