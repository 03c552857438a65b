"""The features of recipes, read from their composed configurations, and a set of recipes that covers all features."""

from collections.abc import Iterator, Mapping

from r1ray.algo import roles_of
from r1ray.check import CheckedRun, CheckedStage

COVERING: Mapping[str, set[str]] = {
    "dapo_32b": set(),
    "gpg_7b": set(),
    "light_r1_14b": {"reward/length/mean"},
    "logic_rl_7b": {"reward/logic_rl/mean"},
    "mimo_7b": {"reward/test_difficulty/mean"},
    "open_r1_code": {"reward/code_fraction/mean", "reward/format/mean"},
    "open_r1_codeforces": {"reward/codeforces/mean", "reward/code_format/mean"},
    "open_r1_math": {"reward/format/mean"},
    "orz_32b": set(),
    "prime_7b": set(),
    "r1_zero": {"reward/format/mean"},
    "rl_poet": set(),
    "seed_thinking": set(),
    "skywork_or1_32b": set(),
    "srpo_32b": {"reward/format/mean"},
    "swe_rl_70b": set(),
    "tinyzero": {"reward/answered/mean"},
}
"""{recipe: metrics, besides those of its kinds, that are not 0 in at least one step}. Together these recipes cover every kind."""

METRICS: Mapping[str, set[str]] = {
    "KL in the loss": {"kl_ref", "loss/kl"},
    "KL in the reward": {"kl_ref"},
    "critic": {"critic/updates", "critic/loss/value", "critic/grad_norm", "critic/return"},
    "prm": {"prm/updates", "prm/loss/outcome", "prm/grad_norm"},
    "filter by correct completions": {"groups/refilled"},
    "filter by rewards": {"groups/backfilled"},
    "algorithm vapo": {"loss/imitation"},
    "curriculum easy_pool": {"curriculum/pool_size"},
    "curriculum difficulty": {"curriculum/countdown/level"},
    "reward accuracy": {"reward/accuracy/mean", "solve_rate"},
}
"""{kind: metrics that are not 0 in at least one step, in every recipe of this kind}."""

TEMPLATES = (
    *("chat", "dapo", "deepscaler", "logic_rl", "none", "oat_r1"),
    *("open_r1", "orz", "prime", "qwen_math", "r1_zero", "swe_rl", "tinyzero"),
)
"""Run separately, because with the built-in model every recipe uses r1_zero, the only template that it knows."""


def kinds_of(run: CheckedRun) -> set[str]:
    """The kinds of a recipe at laptop size."""
    return {kind for stage in run.stages for kind in _of_stage(stage)}


def metrics_of(kinds: set[str]) -> set[str]:
    return {metric for kind in kinds for metric in METRICS.get(kind, ())}


def _of_stage(stage: CheckedStage) -> Iterator[str]:
    cfg, algo = stage.config, stage.config.algo
    yield f"stage of {stage.stage.kind}" + (" after another" if stage.stage.after else "")
    yield f"algorithm {algo.name}"
    yield f"aggregation {algo.aggregation}"
    yield from roles_of(algo)
    if algo.kl_coef:
        yield from (f"KL in the {algo.kl_in}", f"KL estimator {algo.kl_estimator}")
    options = {
        "filter by correct completions": algo.filter.min_solve_rate is not None
        or algo.filter.max_solve_rate is not None,
        "filter by rewards": algo.filter.drop_equal,
        "several updates per step": algo.num_minibatches > 1,
        "a policy that is frozen at first": bool(algo.args.get("policy_frozen_steps")),
        "entropy target": algo.entropy_target is not None,
        "dual clip": algo.dual_clip is not None,
        "judges": cfg.judge.path is not None,
        "stop texts": bool(cfg.rollout.stop),
        "decreasing learning rate": cfg.trainer.lr_schedule != "constant",
        "temperature schedule": bool(cfg.rollout.temperature_schedule),
    }
    yield from (name for name, on in options.items() if on)
    yield from (f"reward {part.name or name}" for name, part in cfg.reward.components.items())
    yield f"truncated completions: {cfg.reward.truncated}"
    yield f"curriculum {cfg.data.curriculum.name}"
    yield from (f"problems of {source.args.get('kind', source.source)}" for source in cfg.data.train.values())
