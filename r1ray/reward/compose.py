"""Several rewards -> one Score per completion: the weighted sum, with the raw value of every component.

    reward   sum of weight * value over the components that apply (value not None); `components` has the raw values
             a weight may depend on the step, and a component may apply to some sources only
    correct  from the component that the problem names as its accuracy, whatever its weight

Reward functions may raise anything (SystemExit too) and return anything: what is no reward makes the completion unusable (status
sandbox_error), never 0, and travels with the score (`Score.errors`), unless the infrastructure is at fault
(`r1ray.plugin_errors`). The first failure of a component is also in the worker's log. A component of weight 0 that is not the
accuracy is only logged: its failure makes no sample unusable. Only a missing sandbox ends the run from here.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, cast

from r1ray.plugin_errors import definition_of
from r1ray.reward.base import SUM, ComponentScore, RewardContext, failed_by
from r1ray.step_schedule import value_at
from r1ray.types import STATUSES, Completion, ComponentError, Problem, Score

log = logging.getLogger(__name__)

LARGEST = 3.4028234e38
"""Of float32, in which rewards are trained on."""
NOT_LISTS = (str, bytes, Mapping, set, frozenset)
"""Types that can be iterated, but not as one score after the other."""
DOES_NOT_APPLY = ComponentScore(value=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One reward of the sum. It returns G ComponentScores, or G plain numbers (None: does not apply)."""

    name: str
    weight: float
    schedule: Mapping[int, float] = field(default_factory=dict[int, float])
    """{first step: weight from this step on}."""
    sources: frozenset[str] | None = None
    """Only problems of these sources are scored; None: all."""
    reward: Callable[[Problem, Sequence[Completion], RewardContext], Sequence[Any]]

    def weight_at(self, step: int) -> float:
        """Example: with weight 0.0 and schedule {100: 0.5} it is 0.0 at step 99 and 0.5 at step 100."""
        return value_at(step, self.weight, self.schedule)


class Scorer:
    """Scores groups; one per reward worker.

    `truncated` decides what a completion cut at the limit earns: `zero`: reward 0 and incorrect (its components keep their values);
    `score`: the sum of its components; `mask`: the same, and the sample is left out of the loss later.
    """

    def __init__(self, components: Sequence[Component], *, truncated: Literal["zero", "score", "mask"]) -> None:
        self._components = tuple(components)
        self._truncated = truncated
        self._logged: set[str] = set()

    def score(self, problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> tuple[Score, ...]:
        """One Score per completion, in order; `seconds` is each completion's share of the group's time."""
        start = time.perf_counter()
        results = {component.name: list[ComponentScore]() for component in self._components}
        # The accuracy first: shaped rewards read its verdicts.
        for component in sorted(self._components, key=lambda component: component.name != problem.accuracy):
            results[component.name] = self._run(component, problem, completions_G, context)
            if component.name == problem.accuracy:
                context = replace(context, correct_G=tuple(score.correct for score in results[component.name]))
        seconds = (time.perf_counter() - start) / max(1, len(completions_G))
        return tuple(
            self._combine(
                problem, completion, {name: scores_G[k] for name, scores_G in results.items()}, context.step, seconds
            )
            for k, completion in enumerate(completions_G)
        )

    def _run(
        self, component: Component, problem: Problem, completions_G: Sequence[Completion], context: RewardContext
    ) -> list[ComponentScore]:
        if component.sources is not None and problem.source not in component.sources:
            return [DOES_NOT_APPLY] * len(completions_G)
        try:
            returned = component.reward(problem, completions_G, context)
            scores_G = [_as_component_score(value) for value in _listed(returned, length=len(completions_G))]
        except BaseException as error:
            scores_G = [failed_by(error)] * len(completions_G)
        return [self._reported(component, problem, score) for score in scores_G]

    def _reported(self, component: Component, problem: Problem, score: ComponentScore) -> ComponentScore:
        """The score; an error is logged, the first of each component, and gets the reward's place where it has none."""
        if score.error is None:
            return score
        error = score.error if score.error.place else replace(score.error, place=definition_of(component.reward))
        if component.name not in self._logged:
            self._logged.add(component.name)
            log.error(
                "reward component %r failed on problem %s: %s (%s); the completion is unusable\n%s",
                *(component.name, problem.id, error.message, error.place, error.traceback),
            )
        return replace(score, error=error)

    def _combine(
        self, problem: Problem, completion: Completion, scores: dict[str, ComponentScore], step: int, seconds: float
    ) -> Score:
        cut = completion.truncated and self._truncated == "zero"
        accuracy = scores.get(problem.accuracy)
        correct = accuracy.correct if accuracy else None
        reward = sum(
            component.weight_at(step) * (scores[component.name].value or 0.0) for component in self._components
        )
        needed = (
            component.name
            for component in self._components
            if component.weight_at(step) or component.name == problem.accuracy
        )
        errors = {name: score.error for name, score in scores.items() if score.error}
        if not abs(reward) <= LARGEST:
            errors[SUM] = _error(f"the weighted sum of the components is {reward:g}, which is not finite in float32")
        return Score(
            reward=0.0 if cut or SUM in errors else reward,
            correct=False if cut and correct else correct,
            components={name: score.value for name, score in scores.items()},
            statuses={name: score.status for name, score in scores.items()},
            usable=completion.finish_reason != "abort"
            and SUM not in errors
            and all(scores[name].status != "sandbox_error" for name in needed),
            seconds=seconds,
            errors=errors,
        )


def _listed(returned: Any, *, length: int) -> list[Any]:
    """The G values that a reward returned; G errors when they are no list of G."""
    is_list = isinstance(returned, Iterable) and not isinstance(returned, NOT_LISTS)
    if not is_list or getattr(cast("Any", returned), "ndim", 1) == 0:
        kind = type(cast("object", returned)).__name__
        return [_no_score(f"it returned {returned!r:.60} ({kind}), not a list of {length} scores")] * length
    values = list(islice(cast("Iterable[Any]", returned), length + 1))
    if len(values) != length:
        count = len(values) if len(values) < length else "more"
        return [_no_score(f"it returned {count} scores for {length} completions")] * length
    return values


def _no_score(reason: str) -> ComponentScore:
    return ComponentScore(value=None, status="sandbox_error", error=_error(reason))


def _error(reason: str) -> ComponentError:
    return ComponentError(message=reason, place="", traceback="")


def _as_component_score(given: Any) -> ComponentScore:
    """What a reward returned for one completion; an error for what is no reward."""
    score = given if isinstance(given, ComponentScore) else ComponentScore(value=given)
    if score.status not in STATUSES:
        return _no_score(f"it returned the status {score.status!r:.40}; statuses: {', '.join(STATUSES)}")
    if score.value is None:
        return score
    try:
        if isinstance(score.value, str | bytes):
            raise TypeError
        value = float(score.value)
    except (TypeError, ValueError, OverflowError):
        return _no_score(
            f"it returned {score.value!r:.60} ({type(score.value).__name__}) as a score, not a number or None"
        )
    if not abs(value) <= LARGEST:
        return _no_score(f"it returned a score of {value:g}, which is not finite in float32")
    return replace(score, value=value, correct=None if score.correct is None else bool(score.correct))
