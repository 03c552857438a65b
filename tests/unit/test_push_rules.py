"""What a push decides before anything is sent: over which link, and how long a wait may be."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from r1ray.config import Config
from r1ray.sync.canary import EXACT, ROUNDED, gap_limit
from r1ray.sync.push import Announced, SyncFailed, WeightSync, backend_of

CONF = str(Path(__file__).parents[2] / "conf")
WHOLE_GPUS = ("device=cuda", "rollout.gpus_per_worker=1", "trainer.gpus_per_worker=1")


def config(*overrides: str) -> Config:
    with initialize_config_dir(CONF, version_base="1.3"):
        return Config.model_validate(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))


@pytest.mark.parametrize(
    ("overrides", "backend"),
    [
        ((), "gloo"),
        (WHOLE_GPUS, "nccl"),
        ((*WHOLE_GPUS, "sync.backend=gloo"), "gloo"),
        ((*WHOLE_GPUS, "rollout.gpus_per_worker=0.4", "trainer.gpus_per_worker=0.4"), "gloo"),
    ],
)
def test_nccl_only_between_whole_gpus(overrides: tuple[str, ...], backend: str) -> None:
    assert backend_of(config(*overrides)) == backend


def test_nccl_on_a_shared_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"set sync\.backend=gloo or auto"):
        backend_of(config(*WHOLE_GPUS, "trainer.gpus_per_worker=0.5", "sync.backend=nccl"))


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


def test_waits_grow_with_the_weights_up_to_the_configured_limit() -> None:
    small = Announced(names=["a"], shapes=[[1000]], itemsize=4)
    large = Announced(names=["a", "b"], shapes=[[50_000, 1000], [50_000, 1000]], itemsize=4)
    assert large.num_bytes == 400_000_000
    assert small.timeout_s(limit_s=600) == pytest.approx(20, abs=0.1)
    assert large.timeout_s(limit_s=600) == pytest.approx(60)
    assert large.timeout_s(limit_s=30) == 30


@pytest.mark.parametrize(("died", "attempts"), [(True, 2), (False, 1)])
def test_a_transfer_is_tried_again_when_engines_have_died(
    monkeypatch: pytest.MonkeyPatch, died: bool, attempts: int
) -> None:
    group: Any = SimpleNamespace(role="trainer", handles=[])
    sync = WeightSync(group, group, cfg=config(), vocab_size=32)
    sync.restart_dead = lambda: died
    pushed: list[int] = []

    def push(weights: Announced) -> float:
        pushed.append(sync._version)
        if len(pushed) == 1:
            raise SyncFailed("rollout-1 died during 'transfer weights'")
        return 1e-6

    monkeypatch.setattr(sync, "_announced", lambda: Announced(names=[], shapes=[], itemsize=4))
    monkeypatch.setattr(sync, "_push", push)
    if died:
        assert sync.push(7)["sync/canary_gap"] == 1e-6
    else:
        with pytest.raises(SyncFailed, match="rollout-1 died"):
            sync.push(7)
    assert pushed == [7] * attempts
