"""Metrics over all generated groups, before any filter."""

import math

import numpy as np
import pytest
from algo_samples import sample

from r1ray.run.metrics import (
    CATALOGUE,
    eval_metrics,
    group_metrics,
    is_metric,
    reduce_updates,
    reflections,
    sample_metrics,
    step_metrics,
)
from r1ray.types import Collected, Completion, Group, Message, Problem, Score, VersionSpan


def completion(*, length: int = 4, text: str = "", finish_reason: str = "stop", version: int = 0) -> Completion:
    return Completion(
        token_ids_T=np.arange(length, dtype=np.int32),
        rollout_logprobs_T=np.zeros(length, np.float32),
        temperature=1.0,
        text=text,
        finish_reason=finish_reason,
        versions=(VersionSpan(version=version, start=0, end=length),),
    )


def score(
    *,
    correct: bool | None = True,
    reward: float = 1.0,
    usable: bool = True,
    status: str = "ok",
    form: float | None = 1.0,
) -> Score:
    components = {"accuracy": None if correct is None else float(correct), "format": form}
    statuses = {"accuracy": status, "format": "ok"}
    return Score(reward=reward, correct=correct, components=components, statuses=statuses, usable=usable, seconds=0.0)


def group(
    *scores: Score, completions: tuple[Completion, ...] | None = None, name: str = "p", source: str = "s"
) -> Group:
    problem = Problem(
        id=name,
        source=source,
        messages=(Message(role="user", content="?"),),
        prompt_ids_T=np.array([1, 2, 3], np.int32),
        verifier="math",
        payload={},
    )
    return Group(problem=problem, completions=completions or tuple(completion() for _ in scores), scores=scores)


def collected(generated: list[Group], kept: list[Group]) -> Collected:
    counts = {"refilled": 4, "backfilled": 1, "regenerated": 2, "rescored": 3}
    return Collected(kept=kept, generated=generated, failed=["x"], rollout_s=2.0, reward_s=0.5, **counts)


CORRECT, INCORRECT = score(correct=True, reward=1.0), score(correct=False, reward=0.0, status="wrong_answer")


def test_completions_without_a_trained_token_are_counted() -> None:
    masked = sample(4, mask_T=np.zeros(4, np.float32))
    moved = sample(5, advantages_T=np.full(5, 0.5, np.float32))
    rounded = sample(2, advantages_T=np.full(2, 3e-8, np.float32))
    found = sample_metrics([sample(4), masked, moved, rounded])
    assert found == {"train/masked/fraction": 0.25, "train/zero_advantage/fraction": 0.75}
    assert sample_metrics([]) == {"train/masked/fraction": 0, "train/zero_advantage/fraction": 1}


def test_metrics_are_taken_before_the_filter() -> None:
    mixed, hopeless = group(CORRECT, INCORRECT), group(INCORRECT, INCORRECT)
    metrics = step_metrics(collected([mixed, hopeless], kept=[mixed]), {"collect": 2.5, "train": 4.0}, version=0)
    assert metrics["solve_rate"] == 0.25
    assert metrics["reward/mean"] == 0.25
    assert metrics["train/solve_rate"] == 0.5
    assert metrics["groups/kept"] == 0.5
    assert (metrics["groups/solve_none"], metrics["groups/solve_all"]) == (0.5, 0.0)
    assert [metrics[f"groups/{name}"] for name in ("failed", "regenerated", "rescored")] == [1, 2, 3]


def test_zero_reward_fraction_counts_incorrect_completions_or_zero_rewards() -> None:
    """An incorrect completion may get a reward for its form; an unusable one does not count."""
    formal = score(correct=False, reward=0.1)
    assert (
        group_metrics([group(CORRECT, formal, formal, score(usable=False, correct=None))], version=0)[
            "zero_reward/fraction"
        ]
        == 2 / 3
    )
    judged = [score(correct=None, reward=value) for value in (0.0, 0.3, 0.5, -1.0)]
    metrics = group_metrics([group(*judged), group(*judged)], version=0)
    assert metrics["zero_reward/fraction"] == 0.25 and metrics["groups/generated"] == 2
    assert "zero_reward/fraction" not in group_metrics([group(score(usable=False))], version=0)


def test_times_and_speeds() -> None:
    groups = [group(CORRECT, INCORRECT), group(CORRECT, INCORRECT)]
    metrics = step_metrics(collected(groups, kept=groups[:1]), {"collect": 2.5, "train": 4.0, "sync": 1.0}, version=0)
    assert metrics["time/rollout"] == 2.0
    assert metrics["time/reward"] == 0.5
    assert metrics["time/step"] == 7.5
    assert metrics["tokens_per_second/rollout"] == 4 * 4 / 2.0
    assert metrics["tokens_per_second/train"] == 2 * (3 + 4) / 4.0
    assert "time/collect" not in metrics


def test_unusable_completion_is_counted_without_its_reward() -> None:
    broken = score(correct=None, reward=-99.0, usable=False, status="sandbox_error", form=None)
    metrics = group_metrics([group(CORRECT, INCORRECT, broken)], version=0)
    assert metrics["reward/mean"] == 0.5
    assert metrics["solve_rate"] == 0.5
    assert metrics["reward/format/mean"] == 1.0
    assert metrics["unusable/fraction"] == pytest.approx(1 / 3)
    assert metrics["status/sandbox_error"] == pytest.approx(1 / 3)


def test_each_problem_counts_once_in_the_solve_rate() -> None:
    broken = score(usable=False)
    groups = [group(CORRECT, broken, broken, broken), group(INCORRECT, INCORRECT, INCORRECT, INCORRECT)]
    assert group_metrics(groups, version=0)["solve_rate"] == 0.5


def test_component_that_applies_nowhere_has_no_mean() -> None:
    open_ended = score(correct=None, form=1.0)
    metrics = group_metrics([group(open_ended, open_ended)], version=0)
    assert "reward/accuracy/mean" not in metrics
    assert "solve_rate" not in metrics
    assert metrics["groups/solve_none"] == 0


def test_statuses_are_shares_of_completions() -> None:
    slow = score(correct=False, status="timeout")
    metrics = group_metrics([group(CORRECT, INCORRECT, slow, CORRECT)], version=0)
    assert metrics["status/ok"] == 0.5
    assert metrics["status/wrong_answer"] == 0.25
    assert metrics["status/timeout"] == 0.25
    assert metrics["status/memory"] == 0.0


def test_lengths_truncation_reflection_and_staleness() -> None:
    completions = (
        completion(length=10, text="Wait, that is WRONG. Let me check.", version=3),
        completion(length=20, finish_reason="length", version=5),
    )
    metrics = group_metrics([group(CORRECT, INCORRECT, completions=completions)], version=5)
    assert metrics["response_length/mean"] == 15
    assert metrics["response_length/max"] == 20
    assert metrics["truncated/fraction"] == 0.5
    assert metrics["reflection/mean"] == 1.5
    assert metrics["staleness/max"] == 2


def test_reflection_counts_whole_words() -> None:
    assert reflections("wait WAIT await checked but rebut uncheck") == 3


def test_metrics_by_source_are_taken_before_the_filter() -> None:
    formal = score(correct=False, reward=0.1)
    broken = score(correct=None, reward=-99.0, usable=False, status="sandbox_error")
    groups = [
        group(CORRECT, INCORRECT, source="boxed"),
        group(CORRECT, CORRECT, source="boxed"),
        group(formal, formal, broken, source="program"),
        group(score(correct=None, reward=0.5), source="essay"),
    ]
    metrics = step_metrics(collected(groups, kept=groups[:1]), {"collect": 1.0}, version=0)
    assert {name: value for name, value in metrics.items() if name.startswith("source/")} == {
        "source/boxed/reward/mean": 0.75,
        "source/boxed/solve_rate": 0.75,
        "source/boxed/groups": 2,
        "source/program/reward/mean": 0.1,
        "source/program/solve_rate": 0,
        "source/program/groups": 1,
        "source/essay/reward/mean": 0.5,
        "source/essay/groups": 1,
    }


def test_single_source_has_no_metrics_by_source() -> None:
    groups = [group(CORRECT, INCORRECT), group(INCORRECT, INCORRECT)]
    metrics = step_metrics(collected(groups, kept=groups), {"collect": 1.0}, version=0)
    assert "solve_rate" in metrics and not any(name.startswith("source/") for name in metrics)


def test_no_groups_give_no_metrics() -> None:
    assert group_metrics([], version=0) == {}
    assert step_metrics(collected([], kept=[]), {"collect": 1.0}, version=0)["groups/kept"] == 0


def test_update_metrics_are_reduced_by_kind() -> None:
    updates = [
        {"loss/policy": 1.0, "ratio/max": 1.0, "clip_fraction": 0.0, "lr": 0.1, "updates_skipped": 0, "kl_ref": 0.0},
        {
            "loss/policy": math.nan,
            "ratio/max": 3.0,
            "clip_fraction": 0.5,
            "lr": 0.2,
            "updates_skipped": 1,
            "kl_ref": 0.2,
        },
    ]
    metrics = reduce_updates(updates)
    assert metrics["loss/policy"] == 1.0, "the nan of a skipped update does not hide the others"
    assert metrics["ratio/max"] == 3.0
    assert metrics["clip_fraction"] == 0.25
    assert metrics["lr"] == 0.2
    assert metrics["updates_skipped"] == 1
    assert metrics["first_update/ratio/max"] == 1.0
    assert metrics["first_update/clip_fraction"] == 0.0
    assert metrics["first_update/kl_ref"] == 0.0


def test_loss_that_is_never_finite_is_reported() -> None:
    assert math.isnan(reduce_updates([{"loss/policy": math.nan}])["loss/policy"])


def test_no_update_is_not_a_skipped_update() -> None:
    assert reduce_updates([]) == {"updates_skipped": 0.0}


def test_every_metric_is_in_the_catalogue() -> None:
    groups = [group(CORRECT, INCORRECT), group(CORRECT, INCORRECT, source="another")]
    metrics = step_metrics(collected(groups, kept=groups), {"collect": 1.0, "train": 1.0}, version=0)
    update = {"loss/policy": 0.1, "ratio/max": 1.0, "clip_fraction": 0.0, "lr": 0.1, "kl_ref": 0.0, "grad_norm": 1.0}
    names = [*metrics, *reduce_updates([update]), *eval_metrics("aime", pass_at=[1, 4], samples=4)]
    assert [name for name in names if not is_metric(name)] == []
    assert len(names) > 30
    assert not is_metric("reward/accuracy")
    assert not is_metric("solved")


def test_catalogue_has_the_metrics_that_other_tools_read() -> None:
    wanted = "reward/mean reward/<component>/mean solve_rate response_length/mean reflection/mean truncated/fraction status/<name>"
    wanted += (
        " groups/solve_all groups/solve_none groups/kept loss/<term> kl_ref mismatch/kl entropy clip_fraction ratio/max"
    )
    wanted += " grad_norm lr mismatch/logprob_gap/max staleness/max updates_skipped eval/<set>/accuracy eval/<set>/stderr update"
    assert set(wanted.split()) <= set(CATALOGUE)
