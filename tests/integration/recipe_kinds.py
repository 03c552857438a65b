"""What kinds of things recipes are made of, read from their composed configurations, and a set of recipes that has each of them."""

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
"""{recipe: metrics, beside those of its kinds, that are not 0 in one step at least}. Together they have every kind there is."""

METRICS: Mapping[str, set[str]] = {
    "KL in the loss": {"kl_ref", "loss/kl"},
    "KL in the reward": {"kl_ref"},
    "critic": {"critic/updates", "critic/loss/value", "critic/grad_norm", "critic/return"},
    "prm": {"prm/updates", "prm/loss/outcome", "prm/grad_norm"},
    "filter by right completions": {"groups/refilled"},
    "filter by rewards": {"groups/fillers"},
    "algorithm vapo": {"loss/imitation"},
    "curriculum easy_pool": {"curriculum/pool_size"},
    "curriculum difficulty": {"curriculum/countdown/level"},
    "reward accuracy": {"reward/accuracy/mean", "solve_rate"},
}
"""{kind: metrics that are not 0 in one step at least, in every recipe that has it}."""

TEMPLATES = (
    *("chat", "dapo", "deepscaler", "logic_rl", "none", "oat_r1"),
    *("open_r1", "orz", "prime", "qwen_math", "r1_zero", "swe_rl", "tinyzero"),
)
"""Run by themselves: of these the built-in model knows r1_zero, to which every recipe is put at its size."""


def kinds_of(run: CheckedRun) -> set[str]:
    """Of a recipe at the size of a laptop."""
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
        "filter by right completions": algo.filter.min_solve_rate is not None or algo.filter.max_solve_rate is not None,
        "filter by rewards": algo.filter.drop_equal,
        "several updates a pass": algo.num_minibatches > 1,
        "a policy that is frozen first": bool(algo.args.get("policy_frozen_steps")),
        "entropy target": algo.entropy_target is not None,
        "dual clip": algo.dual_clip is not None,
        "judges": cfg.judge.path is not None,
        "texts that end a completion": bool(cfg.rollout.stop),
        "learning rate that falls": cfg.trainer.lr_schedule != "constant",
        "temperatures by step": bool(cfg.rollout.temperature_schedule),
    }
    yield from (name for name, on in options.items() if on)
    yield from (f"reward {part.name or name}" for name, part in cfg.reward.components.items())
    yield f"truncated completions: {cfg.reward.truncated}"
    yield f"curriculum {cfg.data.curriculum.name}"
    yield from (f"problems of {source.args.get('kind', source.source)}" for source in cfg.data.train.values())
