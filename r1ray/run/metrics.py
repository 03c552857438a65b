"""What a step's numbers are called and how they are counted: pure functions from groups to {name: float}.

Everything without a prefix is counted over ALL groups that were generated, before any filter, so that a filter never looks like
progress; what was trained on stands under `train/`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from r1ray.types import STATUSES, Collected, Completion, Group, Sample, Score

CATALOGUE: Mapping[str, str] = {
    "update": "optimiser updates done",
    "reward/mean": "weighted sum of the reward components, mean over usable completions",
    "reward/<component>/mean": "one part's own value, mean over the completions to which it applies",
    "zero_reward/fraction": "share of usable completions that earned nothing: wrong, or of reward 0 where nothing says right or wrong",
    "solve_rate": "share of correct completions, mean over problems",
    "response_length/mean": "tokens of a response",
    "response_length/max": "tokens of the longest completion",
    "reflection/mean": "words of reflection in a completion",
    "truncated/fraction": "share of completions cut at the limit",
    "unusable/fraction": "share of completions without a score, for reasons not their own",
    "status/<name>": "share of completions of which at least one reward component says so (ok: all components)",
    "groups/generated": "groups that were scored; what stands without a prefix is counted over them",
    "groups/solve_all": "share of groups that taught nothing because every completion was right",
    "groups/solve_none": "share of groups that taught nothing because every completion was wrong",
    "groups/kept": "share of groups that were trained on",
    "groups/refilled": "groups generated in place of others that were not kept, or dropped",
    "groups/fillers": "groups trained on that the filter refused (algo.filter.min_share leaves room for them)",
    "groups/dropped": "problems given up after rollout.max_attempts",
    "groups/regenerated": "groups generated again because too few completions were usable",
    "groups/rescored": "times a group was scored again because its scores failed",
    "source/<source>/reward/mean": "reward/mean over one source's groups, where a step has groups of more than one",
    "source/<source>/solve_rate": "solve_rate of one source, likewise",
    "source/<source>/groups": "its groups that were scored",
    "train/reward/mean": "reward/mean over the groups trained on",
    "train/solve_rate": "solve_rate over the groups trained on",
    "train/response_length/mean": "response_length/mean over the groups trained on",
    "train/masked/fraction": "share of their completions of which no token is in the loss: unusable, cut and masked for it "
    "(reward.truncated=mask), or of a group that the algorithm removed",
    "curriculum/<what>": "pool_size, pool_draws, left_out: problems, as the curriculum has them after the step",
    "curriculum/<source>/<what>": "level: of the problems that come next",
    "loss/<term>": "a term of the loss as it is minimised: weighted by algo.aggregation and its coefficient, summed",
    "kl_ref": "KL of the policy to the reference",
    "mismatch/kl": "KL of the trainer's policy to the engine's, on the sampled tokens",
    "entropy": "of the policy's distribution, mean over tokens",
    "state/<name>": "a number of the algorithm's state after the step: a coefficient that follows a target, steps of a critic",
    "clip_fraction": "share of tokens whose ratio was clipped",
    "ratio/max": "largest ratio of new to old probability",
    "first_update/<name>": "the same in the first update of the step, where the policy has not moved: ratio 1, nothing clipped",
    "first_update/<name>/max": "likewise",
    "importance_sampling/mean": "importance weight from the engine's policy to the trainer's (algo.importance_sampling), mean over tokens",
    "importance_sampling/capped": "share of tokens whose weight was above algo.is_cap",
    "grad_norm": "global gradient norm before clipping",
    "lr": "learning rate of the last update",
    "mismatch/logprob_gap/max": "largest difference between the trainer's and the engine's log-prob of a sampled token",
    "mismatch/logprob_gap/mean": "the same, mean over tokens",
    "staleness/max": "weight versions between the oldest sampled token and the weights trained on",
    "updates_skipped": "updates left out because loss or gradient was not finite, or the gap too large",
    "<trainer>/updates": "updates of the critic or the process reward model (prm) in this step",
    "<trainer>/updates_skipped": "those of them that were left out",
    "<trainer>/loss/<term>": "a term of its loss",
    "<trainer>/grad_norm": "its gradient's norm before clipping",
    "<trainer>/lr": "its learning rate",
    "critic/value": "of the states of the step, mean over tokens",
    "critic/return": "what they are to be, mean over tokens",
    "critic/error": "mean squared difference of the two: above the returns' own variance nothing is explained",
    "critic/value_clipped": "share of values that moved as far as they may",
    "prm/accuracy": "share of completions whose summed process rewards have the right sign, weighted by tokens",
    "eval/<set>/accuracy": "mean over problems and completions (avg@k)",
    "eval/<set>/stderr": "standard error of the accuracy over problems",
    "eval/<set>/<metric>": "pass@k, maj@k and what else an evaluation reports",
    "time/<phase>": "seconds",
    "tokens_per_second/<phase>": "tokens generated or trained on per second of the phase",
}
"""{name: meaning}; `<...>` stands for one path element."""

REFLECTION_WORDS = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")
"""DeepSeek-R1's list (arXiv 2501.12948v2, on the growth of reflection in R1-Zero)."""

_REFLECTION = re.compile(rf"\b(?:{'|'.join(REFLECTION_WORDS)})\b", re.IGNORECASE)
_PATTERNS = [re.compile(re.sub(r"<\w+>", "[^/]+", name)) for name in CATALOGUE]
_FIRST_UPDATE = ("ratio/max", "clip_fraction", "kl_ref")


def is_metric(name: str) -> bool:
    """Whether the catalogue knows this name."""
    return any(pattern.fullmatch(name) for pattern in _PATTERNS)


def eval_metrics(set_name: str, *, pass_at: Sequence[int], samples: int) -> list[str]:
    """The metrics that one evaluation set gives, higher being better.

    Example: `eval_metrics("aime", pass_at=[1], samples=4)` is `["eval/aime/accuracy", "eval/aime/pass@1", "eval/aime/maj@4"]`.
    """
    return [f"eval/{set_name}/{name}" for name in ("accuracy", *(f"pass@{k}" for k in pass_at), f"maj@{samples}")]


def step_metrics(collected: Collected, seconds: Mapping[str, float], *, version: int) -> dict[str, float]:
    """All that the groups and the clock say of one step.

    Args:
        seconds: wall-clock time by phase; its `collect` is split into rollout and reward.
        version: of the weights that these groups train.
    """
    times = {name: value for name, value in seconds.items() if name != "collect"}
    times |= {"rollout": collected.rollout_s, "reward": collected.reward_s, "step": sum(seconds.values())}
    metrics = group_metrics(collected.generated, version=version) | source_metrics(collected.generated)
    trained = group_metrics(collected.kept, version=version)
    train_names = [name.removeprefix("train/") for name in CATALOGUE if name.startswith("train/")]
    metrics |= {f"train/{name}": trained[name] for name in train_names if name in trained}
    metrics |= {
        "groups/kept": len(collected.kept) / max(1, len(collected.generated)),
        "groups/refilled": collected.refilled,
        "groups/fillers": collected.fillers,
        "groups/dropped": len(collected.dropped),
        "groups/regenerated": collected.regenerated,
        "groups/rescored": collected.rescored,
    }
    metrics |= {f"time/{name}": value for name, value in times.items()}
    if collected.rollout_s > 0:
        generated = sum(len(completion.token_ids_T) for completion in _completions(collected.generated))
        metrics["tokens_per_second/rollout"] = generated / collected.rollout_s
    if seconds.get("train", 0) > 0:
        prompts = sum(len(group.problem.prompt_ids_T) * len(group.completions) for group in collected.kept)
        completions = sum(len(completion.token_ids_T) for completion in _completions(collected.kept))
        metrics["tokens_per_second/train"] = (prompts + completions) / seconds["train"]
    return metrics


def masked_share(samples: Sequence[Sample]) -> float:
    """Of what the algorithm was given, as it left it: the share without a token to train on."""
    return sum(not sample.mask_T.any() for sample in samples) / max(1, len(samples))


def group_metrics(groups: Sequence[Group], *, version: int) -> dict[str, float]:
    """Rewards, lengths and statuses of groups; {} when there are none. A name is left out when nothing applies to it."""
    if not groups:
        return {}
    completions, scores = _completions(groups), [score for group in groups for score in group.scores]
    lengths = [len(completion.token_ids_T) for completion in completions]
    rates = [rate for group in groups if (rate := group.solve_rate) is not None]
    usable = [score for score in scores if score.usable]
    oldest = [span.version for completion in completions for span in completion.versions]
    metrics = {
        "reward/mean": _mean_reward(groups),
        # Correctness first: a format or length reward hides that nothing is right any more.
        "zero_reward/fraction": _mean(float(_earned_nothing(score)) for score in usable),
        "solve_rate": _mean(rates),
        "response_length/mean": fmean(lengths),
        "response_length/max": max(lengths),
        "reflection/mean": fmean(reflections(completion.text) for completion in completions),
        "truncated/fraction": fmean(completion.truncated for completion in completions),
        "unusable/fraction": 1 - len(usable) / len(scores),
        "groups/generated": len(groups),
        "groups/solve_all": sum(rate == 1 for rate in rates) / len(groups),
        "groups/solve_none": sum(rate == 0 for rate in rates) / len(groups),
        "staleness/max": version - min(oldest) if oldest else None,
    }
    metrics |= _component_means(usable) | _status_shares(scores)
    return {name: float(value) for name, value in metrics.items() if value is not None}


def source_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """A mixture's reward and solve rate by source; {} when all groups are of one, of which the plain names say it."""
    by_source: dict[str, list[Group]] = {}
    for group in groups:
        by_source.setdefault(group.problem.source, []).append(group)
    if len(by_source) < 2:
        return {}
    metrics: dict[str, float | None] = {}
    for source, theirs in sorted(by_source.items()):
        metrics |= {
            f"source/{source}/reward/mean": _mean_reward(theirs),
            f"source/{source}/solve_rate": _mean(group.solve_rate for group in theirs),
            f"source/{source}/groups": len(theirs),
        }
    return {name: float(value) for name, value in metrics.items() if value is not None}


def reduce_updates(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One step's metrics from those of its optimiser updates: `/max` by maximum, updates_skipped by sum, lr the last, else means.

    Values that are not finite (a skipped update) are left out of means; the first update is reported apart too.
    """
    metrics: dict[str, float] = {"updates_skipped": 0.0}
    for name in {name: None for update in updates for name in update}:
        values = [update[name] for update in updates if name in update]
        finite = [value for value in values if math.isfinite(value)]
        if name == "updates_skipped":
            metrics[name] = sum(values)
        elif name.endswith("/max"):
            metrics[name] = max(values)
        elif name == "lr":
            metrics[name] = values[-1]
        else:
            metrics[name] = fmean(finite) if finite else math.nan
    first = updates[0] if updates else {}
    return metrics | {f"first_update/{name}": first[name] for name in _FIRST_UPDATE if name in first}


def reduce_trainers(updates: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """As `reduce_updates`, of the policy's trainer under plain names and of others under their role: `critic/loss/value`.

    Args:
        updates: {role: metrics of each update}; the policy's role is `trainer`.
    """
    metrics = reduce_updates(updates["policy"])
    for role in updates.keys() - {"policy"}:
        metrics |= {f"{role}/updates": float(len(updates[role]))}
        metrics |= {f"{role}/{name}": value for name, value in reduce_updates(updates[role]).items()}
    return metrics


def reflections(text: str) -> int:
    """How many words of reflection a completion holds. Example: `reflections("Wait, that is wrong.") == 2`."""
    return len(_REFLECTION.findall(text))


def _completions(groups: Sequence[Group]) -> list[Completion]:
    return [completion for group in groups for completion in group.completions]


def _mean_reward(groups: Sequence[Group]) -> float | None:
    return _mean(score.reward for group in groups for score in group.scores if score.usable)


def _earned_nothing(score: Score) -> bool:
    return score.reward == 0 if score.correct is None else not score.correct


def _component_means(scores: Sequence[Score]) -> dict[str, float | None]:
    names = {name: None for score in scores for name in score.components}
    return {f"reward/{name}/mean": _mean(score.components.get(name) for score in scores) for name in names}


def _status_shares(scores: Sequence[Score]) -> dict[str, float]:
    shares = {f"status/{status}": fmean(status in score.statuses.values() for score in scores) for status in STATUSES}
    return shares | {"status/ok": fmean(set(score.statuses.values()) <= {"ok"} for score in scores)}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
