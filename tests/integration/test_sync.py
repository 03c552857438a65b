"""Weights after every step: engines compute with the weights that the trainer has, and every fault is noticed.

Every engine is a `RolloutWorker` with vLLM in a Ray actor, driven by `WeightSync`. Here the trainer is a plain transformers model,
so that the expected weights are certain; `test_sync_deepspeed.py` uses the real trainer.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from sync_parts import (
    PROMPTS,
    completions,
    config,
    greedy,
    greedy_tokens,
    load,
    logprobs_of,
    sampling_gap,
    start_engines,
)
from tiny_models import VOCAB_SIZE, make_tiny_model, move_weights

from r1ray.actors.group import ActorGroup
from r1ray.actors.weight_sync import SyncFailed, WeightSync
from r1ray.config import Config
from r1ray.engine.base import EngineAsleep, SamplingSpec
from r1ray.sync import layout
from r1ray.sync.canary import logprob_gap
from r1ray.sync.layout import Rendezvous
from r1ray.sync.sender import Sent, WeightSender
from r1ray.types import Floats, Ints

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.integration


class PlainTrainer:
    """The methods of a trainer rank that `WeightSync` calls, over one transformers model."""

    def __init__(self, model_path: str) -> None:
        self.model = load(model_path)
        self.sender = WeightSender(rank=0)
        self.leave_out: str | None = None
        """WeightManifest but not yielded."""
        self.forget: str | None = None
        """Neither announced nor yielded."""

    def set(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            setattr(self, name, value)

    def move(self, seed: int) -> None:
        move_weights(self.model, seed=seed, scale=0.05)

    def weight_metadata(self) -> list[tuple[str, str, list[int]]]:
        return [(name, "float32", list(p.shape)) for name, p in self.model.named_parameters() if name != self.forget]

    def open_transfer(self, *, timeout_s: float) -> tuple[str, int]:
        return "127.0.0.1", self.sender.listen("127.0.0.1", timeout_s=timeout_s)

    def connect_transfer(self, rendezvous: Rendezvous) -> None:
        self.sender.connect(rendezvous)

    def send_weights(self, *, version: int, dtype_name: str, bucket_bytes: int) -> Sent | None:
        weights = ((n, p) for n, p in self.model.named_parameters() if n not in (self.forget, self.leave_out))
        return self.sender.send(
            self.weight_metadata(), weights, version=version, dtype_name=dtype_name, bucket_bytes=bucket_bytes
        )

    def logprobs_of(self, sequences: Sequence[Ints]) -> list[Floats]:
        return [logprobs_of(self.model, sequence, temperature=1.0) for sequence in sequences]


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def start_trainer(folder: Path) -> ActorGroup:
    actor = ray.remote(PlainTrainer).options(num_cpus=1, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    return ActorGroup("policy", [actor.remote(str(folder))])


def trainer_call(trainer: ActorGroup, method: str, *args: Any, **kwargs: Any) -> Any:
    return ray.get(getattr(trainer.handles[0], method).remote(*args, **kwargs), timeout=60)


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        ("qwen2", True),
        ("qwen2", False),
        ("qwen3", True),
        ("llama", False),
        pytest.param("qwen3", False, marks=pytest.mark.slow),
        pytest.param("llama", True, marks=pytest.mark.slow),
    ],
)
def test_engines_compute_with_the_trainer_weights_after_a_push(tmp_path: Path, family: str, tied: bool) -> None:
    old_folder = make_tiny_model(tmp_path / "old", family=family, tied=tied)
    model = load(old_folder)
    move_weights(model, seed=1, scale=0.05)
    new_folder = make_tiny_model(tmp_path / "new", family=family, tied=tied)  # for its tokenizer
    model.save_pretrained(new_folder)
    cfg = config("rollout.num_workers=2")
    rollouts, trainer = start_engines([old_folder, new_folder], cfg), start_trainer(old_folder)
    follower, fresh = rollouts.handles
    try:
        trainer_call(trainer, "move", seed=1)
        truth = [greedy(model, prompt) for prompt in PROMPTS]
        assert greedy_tokens(fresh) == truth
        assert greedy_tokens(follower) != truth
        assert sampling_gap(follower, model, temperature=1.0) > 0.1

        alone = WeightSync(trainer, ActorGroup("rollout", [follower]), cfg=cfg, vocab_size=VOCAB_SIZE)
        metrics = alone.push(0)

        assert greedy_tokens(follower) == greedy_tokens(fresh) == truth
        assert sampling_gap(follower, model, temperature=1.0) < 1e-4
        assert sampling_gap(follower, model, temperature=0.6) < 1e-4
        assert metrics["sync/canary_gap"] < 1e-4
        assert metrics["sync/bytes"] == sum(p.numel() * 4 for p in model.parameters())

        trainer_call(trainer, "move", seed=2)
        move_weights(model, seed=2, scale=0.05)
        assert greedy_tokens(fresh) != [greedy(model, prompt) for prompt in PROMPTS]
        both = WeightSync(trainer, rollouts, cfg=cfg, vocab_size=VOCAB_SIZE)
        both.push(1)
        for engine in rollouts.handles:
            assert greedy_tokens(engine) == [greedy(model, prompt) for prompt in PROMPTS]
            assert sampling_gap(engine, model, temperature=1.0) < 1e-4
            assert sampling_gap(engine, model, temperature=0.6) < 1e-4
            assert {
                span.version for completion in completions(engine, temperature=1.0) for span in completion.versions
            } == {1}
    finally:
        rollouts.shutdown()
        trainer.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_all_workers_of_a_tensor_parallel_engine_get_the_weights(tmp_path: Path, tied: bool) -> None:
    folder = make_tiny_model(tmp_path / "model", tied=tied)
    cfg = config("rollout.num_workers=1", "rollout.tensor_parallel_size=2")
    rollouts, trainer, model = start_engines([folder], cfg), start_trainer(folder), load(folder)
    (engine,) = rollouts.handles
    try:
        trainer_call(trainer, "move", seed=1)
        move_weights(model, seed=1, scale=0.05)
        truth = [greedy(model, prompt) for prompt in PROMPTS]
        assert greedy_tokens(engine) != truth
        assert sampling_gap(engine, model, temperature=1.0) > 0.1
        WeightSync(trainer, rollouts, cfg=cfg, vocab_size=VOCAB_SIZE).push(0)
        assert greedy_tokens(engine) == truth
        assert sampling_gap(engine, model, temperature=1.0) < 1e-4
        assert sampling_gap(engine, model, temperature=0.6) < 1e-4
    finally:
        ray.get(
            engine.shutdown.remote(), timeout=60
        )  # a killed engine would leave the shared memory of its workers behind
        rollouts.shutdown()
        trainer.shutdown()


def give_up(error: SyncFailed) -> None:
    raise error


class Pair:
    """Two engines and a trainer that have synced once. Each test leaves them in sync unless its docstring says otherwise."""

    def __init__(self, folder: Path, cfg: Config) -> None:
        self.folder, self.cfg = folder, cfg
        self.rollouts = start_engines([folder, folder], cfg)
        self.trainer = start_trainer(folder)
        self.version = 0
        self.seeds: list[int] = []
        self.sync = WeightSync(self.trainer, self.rollouts, cfg=cfg, vocab_size=VOCAB_SIZE)
        self.sync.push(0)

    def move(self) -> None:
        self.seeds.append(10 + len(self.seeds))
        trainer_call(self.trainer, "move", seed=self.seeds[-1])

    def push(self) -> dict[str, float]:
        self.version += 1
        return self.sync.push(self.version)

    def push_once(self) -> dict[str, float]:
        """As `push`, but a failed transfer is not retried."""
        on_failure, self.sync.on_failure = self.sync.on_failure, give_up
        try:
            return self.push()
        finally:
            self.sync.on_failure = on_failure

    def sabotage(self, engine: int, fault: str) -> None:
        ray.get(self.rollouts.handles[engine].sabotage.remote(fault), timeout=60)

    def versions(self) -> list[int]:
        return ray.get([handle.ping.remote() for handle in self.rollouts.handles], timeout=60)

    def shutdown(self) -> None:
        self.rollouts.shutdown()
        self.trainer.shutdown()


@pytest.fixture(scope="module", params=["gloo", "ipc"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """For both links that a machine without a GPU has."""
    cfg = config("rollout.num_workers=2", "rollout.sleep=true", f"sync.backend={request.param}")
    made = Pair(make_tiny_model(tmp_path_factory.mktemp("model")), cfg)
    yield made
    made.shutdown()


def test_dropped_tensor_is_noticed_and_the_old_weights_stay(pair: Pair) -> None:
    before = [greedy_tokens(handle) for handle in pair.rollouts.handles]
    pair.move()
    trainer_call(pair.trainer, "set", leave_out="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(SyncFailed, match=r"up_proj\.weight \[192, 128\] was announced, but the trainer yielded"):
        pair.push_once()
    assert [greedy_tokens(handle) for handle in pair.rollouts.handles] == before

    trainer_call(pair.trainer, "set", leave_out=None)
    assert pair.push()["sync/canary_gap"] < 1e-4
    assert [greedy_tokens(handle) for handle in pair.rollouts.handles] != before


def test_stale_packed_lm_head_is_noticed(pair: Pair) -> None:
    pair.move()
    pair.sabotage(1, "skip the repack")
    with pytest.raises(SyncFailed, match=r"differ from the trainer's: rollout-1 by [\d.]+ \(limit 0\.001\)"):
        pair.push_once()
    pair.sabotage(1, "none")
    assert pair.push()["sync/canary_gap"] < 1e-4


def test_wrong_rank_offset_is_noticed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.move()
    cfg = config("rollout.num_workers=2", "sync.timeout_s=5", f"sync.backend={pair.cfg.sync.backend}")
    fresh = WeightSync(pair.trainer, pair.rollouts, cfg=cfg, vocab_size=VOCAB_SIZE)
    with monkeypatch.context() as patch:
        patch.setattr(layout, "rank_offset", lambda engine, *, workers: 1)
        patch.setattr(fresh, "on_failure", give_up)
        with pytest.raises(SyncFailed, match="connect trainer and engines"):
            fresh.push(1)
    assert fresh.push(1)["sync/canary_gap"] < 1e-4
    pair.sync, pair.version = fresh, 1


def test_flipped_bit_is_noticed_before_weights_are_loaded(pair: Pair) -> None:
    before, version = greedy_tokens(pair.rollouts.handles[0]), pair.versions()[0]
    pair.move()
    pair.sabotage(0, "flip a bit")
    with pytest.raises(SyncFailed, match=r"rollout-0 failed .* TransferError: weights of version .* but version"):
        pair.push_once()
    assert greedy_tokens(pair.rollouts.handles[0]) == before
    assert pair.versions()[0] == version
    pair.sabotage(0, "none")
    assert pair.push()["sync/canary_gap"] < 1e-4


def test_failed_transfer_is_retried(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.move()
    pair.sabotage(0, "flip a bit")
    failed: list[SyncFailed] = []
    monkeypatch.setattr(pair.sync, "on_failure", failed.append)
    assert pair.push()["sync/canary_gap"] < 1e-4
    pair.sabotage(0, "none")
    assert ["rollout-0 failed" in str(error) for error in failed] == [True]
    assert pair.versions() == [pair.version, pair.version]


def test_running_requests_continue_with_the_new_weights(pair: Pair) -> None:
    pair.move()
    sampling, handle, old = SamplingSpec(temperature=0.6, max_tokens=32), pair.rollouts.handles[0], pair.version
    calls = [
        handle.generate.remote(request_id=f"{i}", prompt_ids_T=PROMPTS[0], seeds=[i], sampling=sampling)
        for i in range(64)
    ]
    pair.push()
    done = [completion for (completion,) in ray.get(calls, timeout=60)]
    crossing = [
        completion for completion in done if [span.version for span in completion.versions] == [old, pair.version]
    ]
    assert crossing
    model = load(pair.folder)
    for seed in pair.seeds:
        move_weights(model, seed=seed, scale=0.05)
    for completion in crossing:
        # After the push every token is drawn from the distribution of the new weights, with no old state in its context.
        whole = np.concatenate([PROMPTS[0], completion.token_ids_T])
        truth = logprobs_of(model, whole, temperature=0.6)[len(PROMPTS[0]) :]
        start = completion.versions[1].start
        assert completion.versions[1].end == len(completion.token_ids_T)
        assert logprob_gap(truth[start:], completion.rollout_logprobs_T[start:]) < 1e-4


def all_engines(pair: Pair, method: str) -> None:
    ray.get([getattr(handle, method).remote() for handle in pair.rollouts.handles], timeout=60)


def test_engines_give_the_same_completions_after_sleep(pair: Pair) -> None:
    before = [greedy_tokens(handle) for handle in pair.rollouts.handles]
    all_engines(pair, "sleep")
    all_engines(pair, "sleep")
    all_engines(pair, "wake")
    all_engines(pair, "wake")
    assert [greedy_tokens(handle) for handle in pair.rollouts.handles] == before


def test_sleeping_engine_sends_heartbeats_and_refuses_requests(pair: Pair) -> None:
    (handle, _) = pair.rollouts.handles
    ray.get(handle.sleep.remote(), timeout=60)
    before = ray.get(handle.status.remote(), timeout=10)
    assert ray.get(handle.status.remote(), timeout=10) == before
    assert before["ended"] is None and before["unfinished"] == 0
    with pytest.raises(EngineAsleep, match="weights"):
        greedy_tokens(handle)
    with pytest.raises(EngineAsleep):
        ray.get(handle.logprobs_of.remote([PROMPTS[0]]), timeout=60)
    ray.get(handle.wake.remote(), timeout=60)
    assert greedy_tokens(handle) == greedy_tokens(pair.rollouts.handles[1])


def test_push_wakes_sleeping_engines_before_scoring_canaries(pair: Pair) -> None:
    before = greedy_tokens(pair.rollouts.handles[0])
    ray.get(
        pair.rollouts.handles[0].sleep.remote(), timeout=60
    )  # the other one was restarted in the meantime, for instance
    pair.move()
    assert pair.push()["sync/canary_gap"] < 1e-4
    after = [greedy_tokens(handle) for handle in pair.rollouts.handles]
    assert after[0] == after[1] != before
    assert pair.versions() == [pair.version, pair.version]


def test_sleeping_engine_wakes_with_old_weights_after_a_failed_transfer(pair: Pair) -> None:
    (handle, _), version = pair.rollouts.handles, pair.versions()[0]
    before = greedy_tokens(handle)
    all_engines(pair, "sleep")
    pair.move()
    pair.sabotage(0, "flip a bit")
    with pytest.raises(SyncFailed, match="TransferError"):
        pair.push_once()
    with pytest.raises(EngineAsleep, match="kv_cache"):
        greedy_tokens(handle)
    all_engines(pair, "wake")
    assert greedy_tokens(handle) == before and pair.versions()[0] == version
    pair.sabotage(0, "none")
    all_engines(pair, "sleep")
    assert pair.push()["sync/canary_gap"] < 1e-4


def test_hung_engine_is_named_and_a_later_push_works(pair: Pair) -> None:
    pair.move()
    pair.sabotage(1, "hang")
    with pytest.raises(SyncFailed, match="rollout-1 did not finish 'transfer weights of version") as caught:
        pair.push_once()
    assert caught.value.unresponsive == {"rollout-1"}
    ray.get(pair.rollouts.handles[1].ping.remote(), timeout=60)
    pair.sabotage(1, "none")
    assert pair.push()["sync/canary_gap"] < 1e-4


def test_dead_engine_leaves_the_other_with_its_weights_and_pushes_continue(pair: Pair) -> None:
    survivor = pair.rollouts.handles[0]
    before = greedy_tokens(survivor)
    pair.move()
    pair.sabotage(1, "die")
    # No worker is unresponsive: the sender and the survivor end their waits with errors of their own.
    with pytest.raises(SyncFailed, match=r"(?s)policy-0 failed .*rollout-0 failed .*rollout-1 died") as caught:
        pair.push_once()
    assert "did not finish" not in str(caught.value)
    assert greedy_tokens(survivor) == before

    pair.rollouts = ActorGroup("rollout", [survivor])
    pair.sync = WeightSync(pair.trainer, pair.rollouts, cfg=pair.cfg, vocab_size=VOCAB_SIZE)
    assert pair.push()["sync/canary_gap"] < 1e-4
    assert greedy_tokens(survivor) != before


def test_engine_that_cannot_load_its_whole_model_is_broken(pair: Pair) -> None:
    """The trainer neither announces nor sends a tensor, so the transfer itself is complete. The last test of this pair."""
    trainer_call(pair.trainer, "set", forget="model.norm.weight")
    sync = WeightSync(pair.trainer, pair.rollouts, cfg=pair.cfg, vocab_size=VOCAB_SIZE)
    with pytest.raises(SyncFailed, match=r"EngineBroken: .* no weights for model\.norm\.weight"):
        sync.push(99)
    with pytest.raises(RuntimeError, match=r"model\.norm\.weight"):
        greedy_tokens(pair.rollouts.handles[0])
