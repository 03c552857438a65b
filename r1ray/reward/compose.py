"""Several rewards -> one Score per completion: the weighted sum, with the raw value of every component.

    reward   sum of weight * value over the components that apply (value not None); `components` has the raw values
             a weight may depend on the step, and a component may apply to some sources only
    correct  from the component that the problem names as its accuracy, whatever its weight

Reward functions may raise anything: exceptions are caught here, logged once, and make the completions unusable (status
sandbox_error), never 0. A component of weight 0 that is not the accuracy is only logged: its failure makes no sample unusable. Only
a missing sandbox ends the run.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from r1ray.reward.base import ComponentScore, RewardContext
from r1ray.sandbox.base import SandboxUnavailable
from r1ray.step_schedule import value_at
from r1ray.types import Completion, Problem, Score

log = logging.getLogger(__name__)

FAILED = ComponentScore(value=None, status="sandbox_error")
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
            scores_G = [_as_component_score(value) for value in component.reward(problem, completions_G, context)]
            if len(scores_G) != len(completions_G):
                raise ValueError(f"{len(scores_G)} scores for {len(completions_G)} completions")
            return scores_G
        except SandboxUnavailable:
            raise  # neither a retry nor another worker would have one
        except Exception:
            if component.name not in self._logged:
                self._logged.add(component.name)
                log.exception(
                    "reward component %r failed on problem %s; its completions are unusable", component.name, problem.id
                )
            return [FAILED] * len(completions_G)

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
        return Score(
            reward=0.0 if cut else reward,
            correct=False if cut and correct else correct,
            components={name: score.value for name, score in scores.items()},
            statuses={name: score.status for name, score in scores.items()},
            usable=completion.finish_reason != "abort"
            and all(scores[name].status != "sandbox_error" for name in needed),
            seconds=seconds,
        )


def _as_component_score(value: ComponentScore | float | None) -> ComponentScore:
    score = (
        value if isinstance(value, ComponentScore) else ComponentScore(value=None if value is None else float(value))
    )
    if score.value is not None and not math.isfinite(score.value):
        raise ValueError(f"a reward of {score.value}")
    return score
