"""The weight sync before anything is sent: the backend, the timeouts, and when a transfer is retried."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from r1ray.actors.weight_sync import ATTEMPTS, Diverged, SyncFailed, WeightManifest, WeightSync
from r1ray.config import Config
from r1ray.failures import TrainersLost
from r1ray.sync.backend import backend_of
from r1ray.sync.canary import EXACT, ROUNDED, gap_limit

CONF = str(Path(__file__).parents[2] / "conf")
WHOLE_GPUS = ("device=cuda", "rollout.gpus_per_worker=1", "trainer.gpus_per_worker=1")


def config(*overrides: str) -> Config:
    with initialize_config_dir(CONF, version_base="1.3"):
        return Config.model_validate(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))


ONE_GPU = (*WHOLE_GPUS, "rollout.gpus_per_worker=0.4", "trainer.gpus_per_worker=0.4", "trainer.num_workers=1")


def chosen(*overrides: str) -> str:
    cfg = config(*overrides)
    return backend_of(device=cfg.device, sync=cfg.sync, rollout=cfg.rollout, trainer=cfg.trainer, cluster=cfg.cluster)


@pytest.mark.parametrize(
    ("overrides", "backend"),
    [
        ((), "gloo"),
        (("sync.backend=ipc",), "ipc"),
        (WHOLE_GPUS, "nccl"),
        ((*WHOLE_GPUS, "sync.backend=gloo"), "gloo"),
        ((*ONE_GPU, "rollout.num_workers=1"), "ipc"),
        ((*ONE_GPU, "rollout.num_workers=1", "sync.backend=gloo"), "gloo"),
        ((*ONE_GPU, "rollout.num_workers=2"), "gloo"),
        ((*ONE_GPU, "rollout.num_workers=1", "trainer.num_workers=2"), "gloo"),
        ((*ONE_GPU, "rollout.num_workers=1", "trainer.gpus_per_worker=0.7"), "gloo"),
        (("scale=one_gpu",), "ipc"),
        (("scale=one_gpu", "+cluster.labels.policy={pool: train}"), "gloo"),
        (("scale=one_gpu", "+cluster.labels.policy={pool: a}", "+cluster.labels.rollout={pool: a}"), "ipc"),
        (("scale=cluster",), "nccl"),
    ],
)
def test_nccl_between_whole_gpus_and_ipc_on_one_gpu(overrides: tuple[str, ...], backend: str) -> None:
    assert chosen(*overrides) == backend


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("sync.backend=nccl",), "device is cpu"),
        ((*WHOLE_GPUS, "trainer.gpus_per_worker=0.5", "sync.backend=nccl"), r"some have 0\.5 of one"),
        ((*WHOLE_GPUS, "sync.backend=ipc"), "one engine of one GPU and one trainer rank"),
        ((*ONE_GPU, "rollout.num_workers=2", "sync.backend=ipc"), "one engine of one GPU and one trainer rank"),
        (("scale=one_gpu", "+cluster.labels.policy={pool: train}", "sync.backend=ipc"), r"the same cluster\.labels"),
    ],
)
def test_a_backend_that_cannot_work_is_refused_with_the_remedy(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){words}.*set sync\.backend=auto"):
        chosen(*overrides)


@pytest.mark.parametrize(
    ("overrides", "limit"),
    [
        (("rollout.dtype=float32", "trainer.precision=fp32"), EXACT),
        (("rollout.dtype=float32", "trainer.precision=bf16_autocast"), EXACT),
        (("rollout.dtype=bfloat16", "trainer.precision=fp32"), ROUNDED),
        (("rollout.dtype=float32", "trainer.precision=bf16"), ROUNDED),
    ],
)
def test_the_less_precise_side_sets_the_canary_limit(overrides: tuple[str, ...], limit: object) -> None:
    assert gap_limit(config(*overrides)) == limit


def test_timeouts_grow_with_the_weights_up_to_the_configured_limit() -> None:
    small = WeightManifest(names=["a"], shapes=[[1000]], itemsize=4)
    large = WeightManifest(names=["a", "b"], shapes=[[50_000, 1000], [50_000, 1000]], itemsize=4)
    assert large.num_bytes == 400_000_000
    assert small.timeout_s(limit_s=600) == pytest.approx(20, abs=0.1)
    assert large.timeout_s(limit_s=600) == pytest.approx(60)
    assert large.timeout_s(limit_s=30) == 30


@pytest.fixture
def sync() -> WeightSync:
    group: Any = SimpleNamespace(role="policy", handles=[], name=lambda index: f"worker-{index}")
    return WeightSync(group, group, cfg=config(), vocab_size=32)


def fail(monkeypatch: pytest.MonkeyPatch, sync: WeightSync, *, times: int) -> list[str]:
    """Let the first `times` transfers fail; returns the pushes and calls of on_failure, in order."""
    did: list[str] = []

    def push(weights: WeightManifest) -> float:
        did.append(f"push {sync._version}")
        if did.count(did[-1]) <= times:
            raise SyncFailed("rollout-1 died during 'transfer weights'")
        return 1e-6

    monkeypatch.setattr(sync, "_weight_manifest", lambda: WeightManifest(names=[], shapes=[], itemsize=4))
    monkeypatch.setattr(sync, "_push", push)
    sync.on_failure = lambda error: did.append(f"recover {error}")
    return did


def test_a_transfer_is_retried_after_on_failure(monkeypatch: pytest.MonkeyPatch, sync: WeightSync) -> None:
    did = fail(monkeypatch, sync, times=1)
    assert sync.push(7)["sync/canary_gap"] == 1e-6
    assert did == ["push 7", "recover rollout-1 died during 'transfer weights'", "push 7"]


def test_a_transfer_that_keeps_failing_ends_with_its_error(monkeypatch: pytest.MonkeyPatch, sync: WeightSync) -> None:
    did = fail(monkeypatch, sync, times=99)
    with pytest.raises(SyncFailed, match="rollout-1 died"):
        sync.push(7)
    assert [one.split()[0] for one in did] == ["push", "recover"] * (ATTEMPTS - 1) + ["push"]


def test_a_transfer_is_not_retried_when_on_failure_raises(monkeypatch: pytest.MonkeyPatch, sync: WeightSync) -> None:
    did = fail(monkeypatch, sync, times=99)

    def lost(error: SyncFailed) -> None:
        raise TrainersLost("policy-0 died") from error

    sync.on_failure = lost
    with pytest.raises(TrainersLost):
        sync.push(7)
    assert did == ["push 7"]


def test_listing_the_weights_is_retried(monkeypatch: pytest.MonkeyPatch, sync: WeightSync) -> None:
    did = fail(monkeypatch, sync, times=0)
    answers = iter([SyncFailed("policy-0 did not answer"), WeightManifest(names=[], shapes=[], itemsize=4)])

    def announced() -> WeightManifest:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(sync, "_weight_manifest", announced)
    sync.push(7)
    assert did == ["recover policy-0 did not answer", "push 7"]


def test_push_current_pushes_the_version_of_the_last_push(monkeypatch: pytest.MonkeyPatch, sync: WeightSync) -> None:
    did = fail(monkeypatch, sync, times=0)
    sync.push(3)
    sync.push_current()
    assert did == ["push 3", "push 3"]


@pytest.mark.parametrize(
    ("bad", "words"), [(np.nan, "not finite"), (-np.inf, "not finite"), (-4e7, "as low as -4e+07")]
)
def test_weights_that_diverged_are_blamed_on_the_learning_rate(sync: WeightSync, bad: float, words: str) -> None:
    """Not on the engines, whose log-probs differ from such a trainer's whatever they compute."""
    trainer = [np.array([0, -3.0, bad], np.float32)]
    engine = [np.array([0, -3.0, -2.0], np.float32)]
    sync._version = 1
    with pytest.raises(
        Diverged, match=rf"diverged: after update 1 .* are {re.escape(words)}.*Lower trainer\.lr=0\.0001"
    ):
        sync._verified_gap(trainer, [engine, engine])
    sync._version = 0
    with pytest.raises(Diverged, match=r"model from which this stage starts are damaged"):
        sync._verified_gap(trainer, [engine])
    with pytest.raises(SyncFailed, match="does not compute with the weights that were sent"):
        sync._verified_gap(engine, [trainer])
    with pytest.raises(SyncFailed, match="does not compute"):
        sync._verified_gap([np.array([0, -40.0], np.float32)], [[np.array([0, -3.0], np.float32)]])
