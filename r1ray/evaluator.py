"""Evaluation: k completions for every problem of every evaluation set, with the same seeds at every evaluation.

avg@k, unbiased pass@k (arXiv 2107.03374) and maj@k, with standard errors over problems. Correctness is read from `Score.correct`,
never from the reward.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from r1ray.collect.reward_errors import RewardErrors
from r1ray.collect.workers import Ref, Workers
from r1ray.config import Config
from r1ray.data.eval_metrics import avg_at_k, maj_at_k, pass_at_k, standard_error
from r1ray.data.prompts import ProblemSet
from r1ray.engine.base import SamplingSpec
from r1ray.reward.accuracy import answer_of
from r1ray.reward.base import RewardContext
from r1ray.run.phases import announce
from r1ray.seeds import seed_of
from r1ray.types import Group, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    workers: Workers
    sets: Mapping[str, Sequence[Problem]]
    sampling: SamplingSpec
    num_samples: int
    pass_at: Sequence[int]
    seed: int
    reward_errors: RewardErrors
    record: Callable[[str, int, Sequence[Group]], None]
    """Called with the name of a set, the step and the set's scored groups (`r1ray.run.log.RunLog.evaluation`)."""
    stopping: Callable[[], bool] = lambda: False
    """Polled while waiting for completions (`r1ray.run.stop.stop_requested`)."""

    def __call__(self, step: int) -> dict[str, float]:
        """{eval/<set>/accuracy, /pass@k, /maj@k, /stderr and others (`summarise`)} and time/eval in seconds.

        {} if the run is to stop: an evaluation may take longer than the time left to save. Raises PluginFailed when a reward has a
        bug.
        """
        start = time.perf_counter()
        metrics: dict[str, float] = {}
        for name, problems in self.sets.items():
            if step == 0:  # before the first line of a step
                announce(f"evaluating {name}: {len(problems)} problems x {self.num_samples} completions")
            try:
                groups = self._sample(problems, step=step)
            finally:
                self.reward_errors.end_step(step)
            if groups is None:
                return {}
            self.record(name, step, groups)
            metrics |= {f"eval/{name}/{key}": value for key, value in self.summarise(groups).items()}
        return metrics | {"time/eval": time.perf_counter() - start}

    def summarise(self, groups: Sequence[Group]) -> dict[str, float]:
        """The metrics of one set. Problems with a completion that could not be scored are left out of correctness, and counted in
        `left_out` and `unusable`.
        """
        completions = [completion for group in groups for completion in group.completions]
        scored = [group for group in groups if all(score.usable for score in group.scores)]
        metrics = {
            "problems": float(len(scored)),
            "left_out": float(len(groups) - len(scored)),
            "response_length": float(np.mean([len(c.token_ids_T) for c in completions])),
            "truncated": float(np.mean([c.truncated for c in completions])),
            "unusable": float(np.mean([not score.usable for group in groups for score in group.scores])),
        }
        if not scored:
            return metrics
        correct_PG = np.array([[bool(score.correct) for score in group.scores] for group in scored])
        votes = [maj_at_k(answers_of(g), c) for g, c in zip(scored, correct_PG.tolist(), strict=True)]
        passed = {
            f"pass@{k}": float(np.mean([pass_at_k(self.num_samples, int(row.sum()), k) for row in correct_PG]))
            for k in self.pass_at
        }
        return {
            "accuracy": avg_at_k(correct_PG),
            "stderr": standard_error(correct_PG.mean(axis=1)),
            **metrics,
            f"maj@{self.num_samples}": float(np.mean(votes)),
            **passed,
        }

    def _sample(self, problems: Sequence[Problem], *, step: int) -> list[Group] | None:
        """A scored group per problem; None if the run is to stop."""
        calls: list[tuple[Problem, Ref, Ref]] = []
        for problem in problems:
            seeds = [seed_of(self.seed, problem.id, 0, 0, k) for k in range(self.num_samples)]
            completions = self.workers.generate(problem, seeds=seeds, sampling=self.sampling)
            context = RewardContext(step=step, seed=seeds[0], max_response_length=self.sampling.max_tokens)
            calls.append((problem, completions, self.workers.score(problem, completions, context)))
        pending: dict[Ref, None] = {ref: None for _, *refs in calls for ref in refs}
        scored = {scores: problem for problem, _, scores in calls}
        results: dict[Ref, Any] = {}
        while pending:
            ready = self.workers.wait(list(pending), until=self.stopping)
            if not ready:
                return None
            for ref in ready:
                del pending[ref]
                results[ref] = self.workers.result(ref)
                if ref in scored:
                    self.reward_errors.observe(
                        scored[ref].id, results[ref], step=step, num_problems=len(problems), again=False
                    )
        return [Group(problem=p, completions=results[c], scores=results[s]) for p, c, s in calls]


def evaluator_of(
    cfg: Config,
    workers: Workers,
    sets: Mapping[str, ProblemSet],
    *,
    reward_errors: RewardErrors,
    record: Callable[[str, int, Sequence[Group]], None],
    stopping: Callable[[], bool],
) -> Evaluator:
    return Evaluator(
        workers=workers,
        sets={name: loaded.problems for name, loaded in sets.items()},
        sampling=SamplingSpec(
            temperature=cfg.eval.temperature,
            max_tokens=cfg.rollout.max_response_length,
            top_p=cfg.eval.top_p,
            stop=tuple(cfg.rollout.stop),
        ),
        num_samples=cfg.eval.num_samples,
        pass_at=cfg.eval.pass_at,
        seed=cfg.eval.seed,
        reward_errors=reward_errors,
        record=record,
        stopping=stopping,
    )


def answers_of(group: Group) -> list[str | None]:
    """The final answer of each completion; None if it has none."""
    return [answer_of(group.problem, completion) for completion in group.completions]
