"""Names and definitions of the metrics of a step: pure functions from groups to {name: float}.

Metrics without a prefix are taken over ALL groups that were generated, before any filter, so that filtering never looks like
progress; those of the groups trained on are under `train/`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, pstdev

from r1ray.algo.mismatch import with_divergences
from r1ray.types import STATUSES, Collected, Completion, Group, Sample, Score

CATALOGUE: Mapping[str, str] = {
    "update": "optimizer steps of the policy so far",
    "reward/mean": "weighted sum of the reward components, mean over usable completions",
    "reward/std": "standard deviation of the rewards over usable completions",
    "reward/<component>/mean": "value of one component, mean over the completions to which it applies",
    "zero_reward/fraction": "share of usable completions that are incorrect, or have reward 0 where correctness does not apply",
    "solve_rate": "share of correct completions, mean over problems",
    "response_length/mean": "tokens of a response",
    "response_length/max": "tokens of the longest response",
    "reflection/mean": "words of reflection in a response",
    "truncated/fraction": "share of completions cut at the length limit",
    "unusable/fraction": "share of completions without a usable score: a reward component failed, or the completion was aborted",
    "status/<name>": "share of completions for which at least one reward component has this status (ok: all components have it)",
    "groups/generated": "groups that were scored; metrics without a prefix are taken over them",
    "groups/solve_all": "share of groups in which every completion is correct (no learning signal)",
    "groups/solve_none": "share of groups in which every completion is incorrect (no learning signal)",
    "groups/kept": "share of groups that were trained on",
    "groups/refilled": "groups dispatched in place of others that the filter rejected or that failed",
    "groups/backfilled": "groups trained on although the filter rejected them (algo.filter.min_share below 1)",
    "groups/failed": "problems given up after rollout.max_attempts",
    "groups/regenerated": "groups generated again because too few completions were usable",
    "groups/rescored": "times that a group was scored again because its scores failed",
    "source/<source>/reward/mean": "reward/mean over the groups of one source, if the step has several sources",
    "source/<source>/solve_rate": "solve_rate of one source, if the step has several",
    "source/<source>/groups": "scored groups of one source, if the step has several",
    "train/reward/mean": "reward/mean over the groups trained on",
    "train/solve_rate": "solve_rate over the groups trained on",
    "train/response_length/mean": "response_length/mean over the groups trained on",
    "train/masked/fraction": "share of completions of the groups trained on that have no token in the loss: unusable, truncated "
    "with reward.truncated=mask, or in a group that the algorithm removed",
    "train/zero_advantage/fraction": "share of completions of the groups trained on whose advantages are all 0 (equal rewards in "
    "their group): they do not move the policy",
    "curriculum/<name>": "a count of the curriculum after the step: pool_size (problems), pool_draws (groups), left_out (problems)",
    "curriculum/<source>/<name>": "level: difficulty of the next problems",
    "loss/<term>": "a term of the loss as it is minimised: aggregated as algo.aggregation says, times its coefficient",
    "kl_ref": "KL divergence of the policy from the reference",
    "mismatch/kl": "KL divergence between the policy in the engine and in the trainer, on sampled tokens",
    "mismatch/k1": "the same by the estimator k1 (mismatch/kl: k3), which can be negative",
    "mismatch/rollout_ppl": "perplexity of the sampled tokens under the engine's policy",
    "mismatch/trainer_ppl": "perplexity of the sampled tokens under the trainer's policy before the step",
    "mismatch/ppl_ratio": "trainer_ppl divided by rollout_ppl; 1 when the two agree",
    "mismatch/chi2": "chi-squared divergence between the two, over tokens: mean of the squared ratio trainer / engine, minus 1",
    "mismatch/sequence_chi2": "the same over sequences, by the product of the ratios of a sequence",
    "mismatch/ess": "effective sample size over tokens, as a share: squared mean of the ratios / mean of their squares",
    "mismatch/sequence_ess": "the same over sequences",
    "entropy": "entropy of the policy, mean over tokens",
    "state/<name>": "a number of the state of the algorithm after the step, such as an adaptive coefficient",
    "clip_fraction": "share of tokens whose ratio was clipped",
    "ratio/max": "largest ratio of new to old probability",
    "first_update/<name>": "the metric in the first update of the step, before the policy moves: ratio 1, nothing clipped",
    "first_update/<name>/max": "likewise",
    "importance_sampling/mean": "importance weight from engine to trainer (algo.importance_sampling), mean over tokens",
    "importance_sampling/capped": "share of tokens whose weight was above algo.is_cap",
    "importance_sampling/floored": "share of tokens whose weight was below algo.is_floor",
    "rejection/fraction": "share of tokens in sequences that algo.rejection leaves out",
    "grad_norm": "global norm of the gradient before clipping",
    "lr": "learning rate of the last update",
    "mismatch/logprob_gap/max": "largest difference between the log-probs of trainer and engine for a sampled token",
    "mismatch/logprob_gap/mean": "the same difference, mean over tokens",
    "staleness/max": "weight versions between the oldest sampled token and the weights trained on",
    "updates_skipped": "updates skipped because loss or gradient was not finite, or the log-prob gap was too large",
    "<trainer>/updates": "updates of the critic or the process reward model (prm) in this step",
    "<trainer>/updates_skipped": "how many of them were skipped",
    "<trainer>/loss/<term>": "a term of its loss",
    "<trainer>/grad_norm": "norm of its gradient before clipping",
    "<trainer>/lr": "its learning rate",
    "critic/value": "predicted value, mean over tokens",
    "critic/return": "target of the value, mean over tokens",
    "critic/error": "mean squared difference of the two; above the variance of the returns the critic explains nothing",
    "critic/value_clipped": "share of values at the limit of their change (clipped value loss)",
    "prm/accuracy": "share of completions whose summed process rewards have the correct sign, weighted by tokens",
    "eval/<set>/accuracy": "mean over problems and completions (avg@k)",
    "eval/<set>/stderr": "standard error of the accuracy over problems",
    "eval/<set>/problems": "problems that the accuracy is the mean of",
    "eval/<set>/left_out": "problems that are not in it, because a completion could not be scored",
    "eval/<set>/<metric>": "pass@k, maj@k and others",
    "memory/<role>": "GiB of resident memory of the worker that uses most, with its child processes, at its last heartbeat",
    "gpu_memory/<role>": "GiB that torch has reserved on its GPU; an engine's are in other processes",
    "time/<phase>": "seconds",
    "tokens_per_second/<phase>": "tokens generated or trained on per second of the phase",
}
"""{name: meaning}; `<...>` is one path element."""

REFLECTION_WORDS = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")
"""The list of DeepSeek-R1 (arXiv 2501.12948v2, on the growth of reflection in R1-Zero)."""

ROUNDING = 1e-5
"""An advantage below this is 0: a mean of equal rewards may differ from them in the last bit."""

_REFLECTION = re.compile(rf"\b(?:{'|'.join(REFLECTION_WORDS)})\b", re.IGNORECASE)
_PATTERNS = [re.compile(re.sub(r"<\w+>", "[^/]+", name)) for name in CATALOGUE]
_FIRST_UPDATE = ("ratio/max", "clip_fraction", "kl_ref")


def is_metric(name: str) -> bool:
    """Whether the name is in the catalogue."""
    return any(pattern.fullmatch(name) for pattern in _PATTERNS)


def eval_metrics(set_name: str, *, pass_at: Sequence[int], samples: int) -> list[str]:
    """The metrics of one evaluation set of which higher is better.

    Example: `eval_metrics("aime", pass_at=[1], samples=4)` is `["eval/aime/accuracy", "eval/aime/pass@1", "eval/aime/maj@4"]`.
    """
    return [f"eval/{set_name}/{name}" for name in ("accuracy", *(f"pass@{k}" for k in pass_at), f"maj@{samples}")]


def step_metrics(collected: Collected, seconds: Mapping[str, float], *, version: int) -> dict[str, float]:
    """The metrics of one step that follow from its groups and times.

    Args:
        seconds: wall-clock time by phase; `collect` is split into rollout and reward.
        version: version of the weights that are trained on these groups.
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
        "groups/backfilled": collected.backfilled,
        "groups/failed": len(collected.failed),
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


def sample_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Of the samples of a step, after the algorithm has computed advantages. Without samples nothing moves the policy."""
    masked = sum(not sample.mask_T.any() for sample in samples)
    moving = sum(bool((abs(s.advantages_T) * s.mask_T > ROUNDING).any()) for s in samples if s.advantages_T is not None)
    return {
        "train/masked/fraction": masked / max(1, len(samples)),
        "train/zero_advantage/fraction": 1 - moving / max(1, len(samples)),
    }


def group_metrics(groups: Sequence[Group], *, version: int) -> dict[str, float]:
    """Rewards, lengths and statuses of groups; {} if there are none. A metric that applies to no completion is left out."""
    if not groups:
        return {}
    completions, scores = _completions(groups), [score for group in groups for score in group.scores]
    lengths = [len(completion.token_ids_T) for completion in completions]
    rates = [rate for group in groups if (rate := group.solve_rate) is not None]
    usable = [score for score in scores if score.usable]
    oldest = [span.version for completion in completions for span in completion.versions]
    metrics = {
        "reward/mean": _mean_reward(groups),
        "reward/std": pstdev(score.reward for score in usable) if usable else None,
        # By correctness where it is known: a format or length reward would hide that every completion is incorrect.
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
    """Reward and solve rate by source of a mixture; {} if all groups are of one source, which the plain names cover."""
    by_source: dict[str, list[Group]] = {}
    for group in groups:
        by_source.setdefault(group.problem.source, []).append(group)
    if len(by_source) < 2:
        return {}
    metrics: dict[str, float | None] = {}
    for source, own in sorted(by_source.items()):
        metrics |= {
            f"source/{source}/reward/mean": _mean_reward(own),
            f"source/{source}/solve_rate": _mean(group.solve_rate for group in own),
            f"source/{source}/groups": len(own),
        }
    return {name: float(value) for name, value in metrics.items() if value is not None}


def reduce_updates(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of a step from those of its updates: maximum for `/max`, sum for updates_skipped, the last lr, otherwise means.

    Values that are not finite (a skipped update) are left out of means. The first update is also reported separately.
    """
    updates = [with_divergences(update) for update in updates]
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
    first: Mapping[str, float] = updates[0] if updates else {}
    return metrics | {f"first_update/{name}": first[name] for name in _FIRST_UPDATE if name in first}


def reduce_trainers(updates: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """`reduce_updates` for the policy under plain names and for other trainers under their role: `critic/loss/value`.

    Args:
        updates: {role: metrics of each update}.
    """
    metrics = reduce_updates(updates["policy"])
    for role in updates.keys() - {"policy"}:
        metrics |= {f"{role}/updates": float(len(updates[role]))}
        metrics |= {f"{role}/{name}": value for name, value in reduce_updates(updates[role]).items()}
    return metrics


def reflections(text: str) -> int:
    """Number of words of reflection in a text. Example: `reflections("Wait, that is wrong.") == 2`."""
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
