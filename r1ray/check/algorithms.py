"""Rules of `algo`: does the algorithm exist, does it take its arguments, and do its options fit each other?

Each is a rule as in `r1ray.check.rules`. Algorithms of r1ray are imported for their signatures, which loads no torch.
"""

import inspect
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from r1ray.algo import ALGORITHMS, factory_of
from r1ray.algo.base import Algorithm, Objective
from r1ray.algo.policy import PolicyGradient
from r1ray.mistakes import NOT_CHECKED, Mistake, did_you_mean
from r1ray.check.names import name_in_module
from r1ray.config import AlgoConfig, TrainerConfig


GIVEN = ("cfg", "max_response_length")
"""What every algorithm is made with; the rest of its parameters are algo.args."""


def name_and_arguments(view: StageView) -> Iterator[Finding]:
    """`made`: the algorithm, or the error that came of making it."""
    algo, made = view.algo, view.algorithm
    unknown = list(name_in_module("algo.name", algo.name, ALGORITHMS, what="an algorithm"))
    yield from unknown
    if unknown:
        return
    if algo.name not in ALGORITHMS and find_spec("torch") is None:
        yield f"{NOT_CHECKED}algo.name={algo.name} and algo.args: it may need torch, which is not installed here"
        return
    try:
        factory = factory_of(algo.name)
    except ValueError as error:
        remedy = "correct the name; a package of your own must be on PYTHONPATH"
        yield Mistake(key="algo.name", value=algo.name, rule=str(error), remedy=remedy)
        return
    if not callable(factory):
        rule, remedy = f"is {factory!r:.60}, which makes nothing", "name a class or a function"
        yield Mistake(key="algo.name", value=algo.name, rule=rule, remedy=remedy)
        return
    told = [*_arguments(algo, factory), *_group(algo, factory)]
    yield from told
    if not told:
        yield from _made(algo, made)


def _made(algo: AlgoConfig, made: Any) -> Iterator[Finding]:
    """It can be made, and has all that is asked of an algorithm."""
    if isinstance(made, Exception):
        rule = f"cannot be made: {type(made).__name__}: {made}"
        yield Mistake(key="algo.name", value=algo.name, rule=rule, remedy="correct it, or algo.args")
        return
    asked = {name for base in (Algorithm, Objective) for name in vars(base) if not name.startswith("_")}
    if missing := sorted(name for name in asked if not hasattr(made, name)):
        rule = f"has no {', '.join(missing)} (r1ray.algo.base.Algorithm)"
        remedy = "derive it from r1ray.algo.policy.PolicyGradient, which has them all, or add what is missing"
        yield Mistake(key="algo.name", value=algo.name, rule=rule, remedy=remedy)


def _arguments(algo: AlgoConfig, factory: Callable[..., Any]) -> Iterator[Finding]:
    parameters = inspect.signature(factory).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if name not in GIVEN and parameter.kind is not parameter.VAR_KEYWORD
    }
    for name, value in algo.args.items():
        key = f"algo.args.{name}"
        if name in named:
            yield from _value(key, value, named[name])
        elif not takes_any:
            rule, remedy = f"{algo.name} takes no such argument", did_you_mean(name, named, prefix="algo.args.")
            yield Mistake(key=key, value=value, rule=rule, remedy=remedy)
    for name, parameter in named.items():
        if name not in algo.args and parameter.default is parameter.empty:
            key = f"algo.args.{name}"
            remedy = f"algo={algo.name}, whose file sets it, or {key}=VALUE"
            yield Mistake(key=key, value=None, rule=f"{algo.name} needs this argument", remedy=remedy)


def _value(key: str, value: Any, parameter: inspect.Parameter) -> Iterator[Mistake]:
    """Where the parameter's type is written down."""
    if parameter.annotation is parameter.empty or isinstance(parameter.annotation, str):
        return
    try:
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        TypeAdapter(parameter.annotation, config=config).validate_python(value, strict=True)
    except ValidationError as error:
        rule = error.errors()[0]["msg"].replace("Input should be", "must be")
        yield Mistake(key=key, value=value, rule=rule, remedy="see conf/algo and the algorithm's docstring")


def _group(algo: AlgoConfig, factory: Callable[..., Any]) -> Iterator[Finding]:
    if algo.group_size > 1:
        return
    filters = {
        "filter.min_solve_rate": algo.filter.min_solve_rate,
        "filter.max_solve_rate": algo.filter.max_solve_rate,
        "filter.drop_equal": algo.filter.drop_equal or None,
    }
    filtered = [name for name, value in filters.items() if value is not None]
    if filtered:
        yield Mistake(
            key="algo.group_size",
            value=algo.group_size,
            rule=f"algo.{filtered[0]} chooses groups by how their completions differ, which one completion cannot: at least 2",
            remedy="algo.group_size=8 (DAPO: 16), or algo.filter.min_solve_rate=null, max_solve_rate=null and drop_equal=false",
        )
    elif isinstance(factory, type) and issubclass(factory, PolicyGradient) and factory.compares_completions:
        yield Mistake(
            key="algo.group_size",
            value=algo.group_size,
            rule=f"{algo.name} compares the completions of one problem with each other: at least 2",
            remedy="algo.group_size=8 (R1: 16), or an algorithm that does not compare them: algo=reinforce_pp",
        )


def batch(view: StageView) -> Iterator[Finding]:
    algo, trainer = view.algo, view.trainer
    samples = algo.prompts_per_step * algo.group_size
    if samples % algo.num_minibatches:
        fits = [n for n in range(1, samples + 1) if samples % n == 0]
        near = sorted(fits, key=lambda n: abs(n - algo.num_minibatches))[:2]
        yield Mistake(
            key="algo.num_minibatches",
            value=algo.num_minibatches,
            rule=f"must divide prompts_per_step * group_size = {algo.prompts_per_step} * {algo.group_size} = {samples}",
            remedy=" or ".join(f"algo.num_minibatches={n}" for n in sorted(near)),
        )
    elif samples // algo.num_minibatches < trainer.data_parallel:
        ranks = "trainer ranks" if trainer.sequence_parallel == 1 else "groups of trainer ranks"
        yield f"an update has {samples // algo.num_minibatches} samples for {trainer.data_parallel} {ranks}: some idle"


def warm_up(view: StageView) -> Iterator[Finding]:
    algo, trainer, steps, made = view.algo, view.trainer, view.steps, view.algorithm
    updates = (steps - getattr(made, "frozen_steps", 0)) * algo.num_minibatches
    if 0 < updates < trainer.warmup_updates:
        yield (
            f"trainer.warmup_updates={trainer.warmup_updates} and all steps together make {updates} updates: the learning rate "
            f"never reaches trainer.lr={trainer.lr:g}"
        )


def aside(view: StageView) -> Iterator[Finding]:
    """What an algorithm does with options that it was not meant for."""
    algo = view.algo
    if algo.name == "gspo" and algo.aggregation != "seq_mean_token_mean":
        yield (
            f"algo.aggregation={algo.aggregation} with gspo, whose loss is the same at every token of a completion: completions weigh by "
            "their length (seq_mean_token_mean: all alike, as in the paper)"
        )
    if algo.name == "gpg" and algo.num_minibatches > 1:
        yield (
            f"algo.num_minibatches={algo.num_minibatches} with gpg, which has no ratio: all but the first update of a step are off-policy "
            "and nothing corrects for it"
        )


def group_filter(view: StageView) -> Iterator[Finding]:
    algo = view.algo
    low = -1.0 if algo.filter.min_solve_rate is None else algo.filter.min_solve_rate
    high = 2.0 if algo.filter.max_solve_rate is None else algo.filter.max_solve_rate
    if low >= high:
        yield Mistake(
            key="algo.filter.min_solve_rate",
            value=algo.filter.min_solve_rate,
            rule=f"must be less than algo.filter.max_solve_rate = {algo.filter.max_solve_rate:g}: no group could be kept",
            remedy="algo.filter.min_solve_rate=0 algo.filter.max_solve_rate=1 (DAPO), or null for an open side",
        )
    elif algo.group_size > 1 and not any(low < k / algo.group_size < high for k in range(algo.group_size + 1)):
        rule = f"no number of right completions among {algo.group_size} is a share between {low:g} and {high:g}: no group could be kept"
        remedy = "a larger algo.group_size, or bounds that are further apart"
        yield Mistake(key="algo.filter.min_solve_rate", value=algo.filter.min_solve_rate, rule=rule, remedy=remedy)


def coefficients(view: StageView) -> Iterator[Finding]:
    algo = view.algo
    if algo.dual_clip is not None and algo.dual_clip <= 1:
        yield Mistake(
            key="algo.dual_clip",
            value=algo.dual_clip,
            rule="the bound for negative advantages must be greater than 1",
            remedy="algo.dual_clip=3.0 (arXiv 1912.09729), or null for none",
        )
    if algo.kl_target is not None and algo.kl_coef == 0:
        yield Mistake(
            key="algo.kl_target",
            value=algo.kl_target,
            rule="the coefficient that follows it starts at algo.kl_coef = 0, and would stay there",
            remedy="algo.kl_coef=0.001 to start with, or algo.kl_target=null for no KL",
        )
    if algo.entropy_target is not None and algo.entropy_max < max(algo.entropy_coef, algo.entropy_step):
        yield Mistake(
            key="algo.entropy_max",
            value=algo.entropy_max,
            rule=f"the coefficient that follows algo.entropy_target starts at {algo.entropy_coef:g} and moves in steps of "
            f"{algo.entropy_step:g}: it needs room",
            remedy="algo.entropy_max=0.005 (Skywork-OR1), or algo.entropy_target=null for a coefficient that stays",
        )
    if algo.importance_sampling != "none" and algo.is_cap < 1:
        yield Mistake(
            key="algo.is_cap",
            value=algo.is_cap,
            rule="where engine and trainer agree the weight is 1: a lower cap would cut every token",
            remedy="algo.is_cap=2.0, or algo.importance_sampling=none",
        )


RULES = (name_and_arguments, batch, warm_up, aside, group_filter, coefficients)
