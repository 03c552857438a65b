"""Ranks that share rows give the same losses, gradients and log-probs as ranks that do not.

The same samples go through the same trainer twice, with and without sharing; `test_trainer` compares the latter with a reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from near import BF16, EXACT, assert_near
from trainer_cases import VOCAB, Together, capture_gradients, config, grpo, make_trainer

from r1ray.algo.base import Objective
from r1ray.algo.critic import CriticObjective
from r1ray.algo.gspo import Gspo
from r1ray.annotate import sample_outputs
from r1ray.config import LoraConfig
from r1ray.data.pack import pack
from r1ray.roles import TrainerRole
from r1ray.types import Sample

pytestmark = pytest.mark.integration

ROWS = {
    "one sequence longer than any slice": [41],
    "sequences across slice boundaries, odd lengths": [3, 11, 2, 26, 7, 5, 13, 2, 9, 17],
    "fewer sequences than ranks": [2],
}
"""{case: lengths}. A row has at most 40 tokens; ranks without a sequence get a row of two tokens."""


OBJECTIVES: Mapping[str, Any] = {
    "grpo": lambda: grpo(num_minibatches=1, kl_coef=0.05, entropy_coef=0.1),
    "gspo": lambda: Gspo(
        cfg=grpo(num_minibatches=1, kl_coef=0.0, clip_low=0.02, clip_high=0.03).cfg, max_response_length=32
    ),
    "critic": lambda: CriticObjective(updates_per_step=1, value_clip=0.05),
}


def samples_of(lengths: Sequence[int]) -> list[Sample]:
    """Samples with prompts of different lengths and arbitrary numbers; old and reference values are offsets to the model's
    outputs."""
    rng, samples = np.random.default_rng(sum(lengths)), []
    for i, length in enumerate(lengths):
        mask_T = (np.arange(length) >= min(1 + i % 4, length - 1)).astype(np.float32)

        def noise(scale: float, mask_T: np.ndarray = mask_T, length: int = length) -> np.ndarray:
            return (scale * rng.normal(size=length) * mask_T).astype(np.float32)

        samples.append(
            Sample(
                token_ids_T=rng.integers(2, VOCAB, length).astype(np.int32),
                mask_T=mask_T,
                rollout_logprobs_T=noise(0.1),
                temperature=0.6 + 0.1 * i,
                group_id="g",
                index=i,
                old_logprobs_T=noise(0.1),
                ref_logprobs_T=noise(0.1),
                old_values_T=noise(0.05),
                advantages_T=rng.normal() * mask_T,
                returns_T=noise(1.0),
            )
        )
    return samples


def updates(
    rank: int, world_size: int, port: int, cfg: Any, path: str, name: str, role: TrainerRole, all_lengths: Any
) -> list[dict[str, Any]]:
    """For each case an update of one trainer: outputs before, metrics, gradients; all ranks have the same weights."""
    objective: Objective = OBJECTIVES[name]()
    trainer = make_trainer(rank, world_size, port, cfg, path, objective, role)
    ranks_per_row = trainer._cfg.sequence_parallel
    together, grads = Together(trainer, rank, world_size, 40, ranks_per_row), capture_gradients(trainer)
    out = []
    for lengths in all_lengths:
        samples = samples_of(lengths)
        outputs = sample_outputs(samples, together)
        # Old log-probs and values are close to the current ones, so that some are clipped and some are not.
        old = ("old_values_T",) if role == "critic" else ("old_logprobs_T", "ref_logprobs_T")
        samples = [
            replace(s, **{name: o_T + getattr(s, name) for name in old})
            for s, o_T in zip(samples, outputs, strict=True)
        ]
        batch = pack(samples, weights=objective.weights(samples, {}), num_ranks=len(together), max_tokens=40)
        metrics = trainer.update(together.rows(batch))
        scores = trainer.logprobs_of([sample.token_ids_T for sample in samples]) if role == "policy" else []
        out.append({"outputs": outputs, "metrics": metrics, "grads": dict(grads), "scores": scores})
    return out


def assert_same(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], *, tolerance: float) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for got_T, want_T in zip(
            (*mine["outputs"], *mine["scores"]), (*other["outputs"], *other["scores"]), strict=True
        ):
            np.testing.assert_allclose(got_T, want_T, atol=tolerance)
        assert_near(mine["grads"], other["grads"], tolerance=tolerance)
        assert mine["metrics"] == pytest.approx(other["metrics"], rel=tolerance, abs=tolerance)


# Adam's first steps have size lr wherever the gradient is not quite 0, so rounding would grow from one update to the next.
# Therefore bfloat16 takes small steps, and adapters, which start at 0, a large eps.
ADAPTERS = {"lora": LoraConfig(rank=4, alpha=6.0, targets="all-linear"), "lr": 1e-2, "adam_eps": 1e-3}
CASES = [
    # ranks, ranks that share a row, objective, trainer
    (2, 2, "grpo", {}),
    (2, 2, "grpo", {"zero_stage": 3, "activation_checkpointing": True}),
    (2, 2, "grpo", {"zero_stage": 1, "precision": "bf16_autocast", "lr": 1e-6}),
    (2, 2, "grpo", ADAPTERS),
    (2, 2, "grpo", ADAPTERS | {"zero_stage": 2}),
    (2, 2, "grpo", ADAPTERS | {"zero_stage": 3, "activation_checkpointing": True}),
    (2, 2, "critic", {"zero_stage": 3}),
    (4, 2, "gspo", {"zero_stage": 3}),
    (4, 2, "grpo", {"zero_stage": 2}),
    (4, 2, "critic", {}),
    (4, 4, "gspo", {}),  # more ranks than key-value heads
]


@pytest.mark.parametrize(("world_size", "ranks_per_row", "objective", "trainer"), CASES, ids=str)
def test_sharing_rows_does_not_change_updates(
    ranks: Any, models: Any, world_size: int, ranks_per_row: int, objective: str, trainer: dict[str, Any]
) -> None:
    role = "critic" if objective == "critic" else "policy"
    # Adapters are compared after one more update: B starts at 0, and until it has changed A has no gradient.
    all_lengths, both = [*([[41]] if "lora" in trainer else []), *ROWS.values()], []
    for size in (1, ranks_per_row):
        cfg = config(sequence_parallel=size, grad_clip=0.0, **trainer)
        both.append(ranks[world_size].run(updates, cfg, models.policy, objective, role, all_lengths))
    assert_same(both[1][0], both[0][0], tolerance=BF16 if "precision" in trainer else EXACT)
    for each in both[0][0][-3:-1]:
        assert len(each["grads"]) == (2 * 2 * 7 if "lora" in trainer else 26)
        assert all(np.abs(grad).max() > 1e-4 for grad in each["grads"].values())
    for other in both[1][1:]:
        assert [each["metrics"] for each in other] == [each["metrics"] for each in both[1][0]]


def next_update(
    rank: int, world_size: int, port: int, cfg: Any, path: str, folder: str, load: bool
) -> dict[str, float]:
    """Metrics of the update after the one that is saved in the folder."""
    objective = OBJECTIVES["grpo"]()
    trainer = make_trainer(rank, world_size, port, cfg, path, objective)
    together = Together(trainer, rank, world_size, 40, cfg.trainer.sequence_parallel)
    samples = samples_of(ROWS["sequences across slice boundaries, odd lengths"])
    batch = pack(samples, weights=objective.weights(samples, {}), num_ranks=len(together), max_tokens=40)
    if load:
        trainer.load(folder)
    else:
        trainer.update(together.rows(batch))
        trainer.save(folder)
    return trainer.update(together.rows(batch))


def test_run_resumes_with_another_sharing_of_rows(ranks: Any, models: Any, tmp_path: Path) -> None:
    before, after = (
        ranks[2].run(next_update, config(zero_stage=2, sequence_parallel=size), models.policy, str(tmp_path), load)[0]
        for size, load in ((1, False), (2, True))
    )
    assert after == pytest.approx(before, rel=1e-5, abs=1e-6)
