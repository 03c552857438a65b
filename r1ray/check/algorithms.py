"""Rules of `algo`: can the algorithm be made, and do its options fit each other?"""

from collections.abc import Iterator

from r1ray.check import plugins
from r1ray.config.view import StageView
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake


def can_be_made(view: StageView) -> Iterator[Finding]:
    findings = list(plugins.algorithm(view))
    yield from findings
    if not any(isinstance(finding, Mistake) or finding.startswith(NOT_CHECKED) for finding in findings):
        rule = f"cannot be made: {type(view.algorithm_error).__name__}: {view.algorithm_error}"
        yield view.mistake("algo.name", rule, "correct it, or derive it from r1ray.algo.policy.PolicyGradient")


def batch(view: StageView) -> Iterator[Finding]:
    algo, trainer = view.algo, view.trainer
    samples = algo.prompts_per_step * algo.group_size
    if samples % algo.num_minibatches:
        fits = [n for n in range(1, samples + 1) if samples % n == 0]
        near = sorted(fits, key=lambda n: abs(n - algo.num_minibatches))[:2]
        rule = f"must divide prompts_per_step * group_size = {algo.prompts_per_step} * {algo.group_size} = {samples}"
        remedy = " or ".join(f"algo.num_minibatches={n}" for n in sorted(near))
        yield view.mistake("algo.num_minibatches", rule, remedy)
    elif samples // algo.num_minibatches < trainer.data_parallel:
        ranks = "trainer ranks" if trainer.sequence_parallel == 1 else "groups of trainer ranks"
        yield f"an update has {samples // algo.num_minibatches} samples for {trainer.data_parallel} {ranks}: some idle"


def warm_up(view: StageView) -> Iterator[Finding]:
    algo, trainer, steps = view.algo, view.trainer, view.steps
    updates = (steps - view.algorithm.frozen_steps) * algo.num_minibatches
    if 0 < updates < trainer.warmup_updates:
        yield (
            f"trainer.warmup_updates={trainer.warmup_updates} and all steps together make {updates} updates: the learning rate "
            f"never reaches trainer.lr={trainer.lr:g}"
        )


def groups(view: StageView) -> Iterator[Finding]:
    used = view.algo.filter.used
    if view.algo.group_size == 1 and used:
        rule = f"algo.filter.{used[0]} selects groups by how their completions differ, so a group needs at least 2"
        remedy = "algo.group_size=8 (DAPO: 16), or algo.filter={min_solve_rate: null, max_solve_rate: null, drop_equal: false}"
        yield view.mistake("algo.group_size", rule, remedy)


def group_filter(view: StageView) -> Iterator[Finding]:
    algo = view.algo
    low = -1.0 if algo.filter.min_solve_rate is None else algo.filter.min_solve_rate
    high = 2.0 if algo.filter.max_solve_rate is None else algo.filter.max_solve_rate
    if low >= high:
        rule = f"must be less than algo.filter.max_solve_rate = {algo.filter.max_solve_rate:g}: no group could be kept"
        remedy = "algo.filter.min_solve_rate=0 algo.filter.max_solve_rate=1 (DAPO), or null for an open side"
        yield view.mistake("algo.filter.min_solve_rate", rule, remedy)
    elif algo.group_size > 1 and not any(low < k / algo.group_size < high for k in range(algo.group_size + 1)):
        rule = (
            f"no group of {algo.group_size} has a solve rate between {low:g} and {high:g}: every group would be dropped"
        )
        remedy = "a larger algo.group_size, or bounds that are further apart"
        yield view.mistake("algo.filter.min_solve_rate", rule, remedy)


def coefficients(view: StageView) -> Iterator[Finding]:
    algo = view.algo
    if algo.kl_target is not None and algo.kl_coef == 0:
        rule = "the coefficient that follows it starts at algo.kl_coef = 0, and would stay there"
        remedy = "algo.kl_coef=0.001 to start with, or algo.kl_target=null for no KL"
        yield view.mistake("algo.kl_target", rule, remedy)
    if algo.entropy_target is not None and algo.entropy_coef_max < max(algo.entropy_coef, algo.entropy_coef_step):
        rule = (
            f"the coefficient that follows algo.entropy_target starts at {algo.entropy_coef:g} and moves in steps of "
            f"{algo.entropy_coef_step:g}: it needs room"
        )
        remedy = "algo.entropy_coef_max=0.005 (Skywork-OR1), or algo.entropy_target=null for a coefficient that stays"
        yield view.mistake("algo.entropy_coef_max", rule, remedy)


def rejection(view: StageView) -> Iterator[Finding]:
    by, low, high = view.algo.rejection.by, view.algo.rejection.low, view.algo.rejection.high
    if by == "none":
        for name, bound in (("low", low), ("high", high)):
            if bound is not None:
                rule = "is not read while algo.rejection.by=none"
                yield view.mistake(f"algo.rejection.{name}", rule, f"algo.rejection.by=mean_k3, or {name}=null")
    elif low is None and high is None:
        yield view.mistake(
            "algo.rejection.by",
            "both algo.rejection.low and algo.rejection.high are null: no sequence would be rejected",
            "algo.rejection.high=0.01 for a mean, or algo.rejection.by=none",
        )
    elif low is not None and high is not None and low > high:
        rule = f"must be at most algo.rejection.high = {high:g}: every sequence would be rejected"
        yield view.mistake("algo.rejection.low", rule, f"algo.rejection.low=-{abs(high):g}, or null")
    elif high is not None and high < 0 and not by.endswith("k1"):
        rule = f"{by} is at least 0: every sequence would be rejected"
        yield view.mistake("algo.rejection.high", rule, "algo.rejection.high=0.01")
    if view.algo.importance_sampling == "none" and view.algo.is_floor > 0:
        rule = "is not read while algo.importance_sampling=none"
        yield view.mistake("algo.is_floor", rule, "algo.importance_sampling=token_mask, or algo.is_floor=0")


RULES = (can_be_made, batch, warm_up, groups, group_filter, coefficients, rejection)
