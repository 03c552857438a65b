"""Evaluation: every problem of every set answered k times, with seeds that are the same at every evaluation.

avg@k, unbiased pass@k and maj@k with standard errors over problems (arXiv 2107.03374 for pass@k). Correctness is read from
`Score.correct`, never from the reward.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from r1ray.collect.workers import Workers
from r1ray.config import Config
from r1ray.data.eval_metrics import avg_at_k, maj_at_k, pass_at_k, standard_error
from r1ray.data.prompts import ProblemSet
from r1ray.engine.base import SamplingSpec
from r1ray.reward.accuracy import answer_of
from r1ray.reward.base import RewardContext
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
    stopping: Callable[[], bool] = lambda: False
    """Asked while completions are awaited (`r1ray.run.stop.asked`)."""

    def __call__(self, step: int) -> dict[str, float]:
        """{eval/<set>/accuracy, /pass@k, /maj@k, /stderr, /response_length, /truncated} and time/eval in seconds.

        {} when the run is to stop: an evaluation takes longer than there is time to save.
        """
        start = time.perf_counter()
        metrics: dict[str, float] = {}
        for name, problems in self.sets.items():
            groups = self._answer(problems, step=step)
            if groups is None:
                return {}
            metrics |= {f"eval/{name}/{key}": value for key, value in self.summarise(groups).items()}
        return metrics | {"time/eval": time.perf_counter() - start}

    def summarise(self, groups: Sequence[Group]) -> dict[str, float]:
        """Problems with a completion that could not be scored say nothing of the model: they are left out, and counted as
        `unusable`.
        """
        completions = [completion for group in groups for completion in group.completions]
        metrics = {
            "response_length": float(np.mean([len(c.token_ids_T) for c in completions])),
            "truncated": float(np.mean([c.truncated for c in completions])),
            "unusable": float(np.mean([not score.usable for group in groups for score in group.scores])),
        }
        judged = [group for group in groups if all(score.usable for score in group.scores)]
        if not judged:
            return metrics
        correct_PG = np.array([[bool(score.correct) for score in group.scores] for group in judged])
        votes = [maj_at_k(answers_of(g), c) for g, c in zip(judged, correct_PG.tolist(), strict=True)]
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

    def _answer(self, problems: Sequence[Problem], *, step: int) -> list[Group] | None:
        pending, completions, scores = {}, {}, {}
        for index, problem in enumerate(problems):
            seeds = [seed_of(self.seed, problem.id, 0, 0, k) for k in range(self.num_samples)]
            ref = self.workers.generate(problem, seeds=seeds, sampling=self.sampling)
            context = RewardContext(step=step, seed=seeds[0], max_response_length=self.sampling.max_tokens)
            pending[ref] = (completions, index)
            pending[self.workers.score(problem, ref, context)] = (scores, index)
        while pending:
            ready = self.workers.wait(list(pending), until=self.stopping)
            if not ready:
                return None
            for ref in ready:
                results, index = pending.pop(ref)
                results[index] = self.workers.result(ref)
        return [
            Group(problem=problem, completions=completions[index], scores=scores[index])
            for index, problem in enumerate(problems)
        ]


def evaluator_of(
    cfg: Config, workers: Workers, sets: Mapping[str, ProblemSet], *, stopping: Callable[[], bool]
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
        stopping=stopping,
    )


def answers_of(group: Group) -> list[str | None]:
    """Each completion's final answer, None where there is none."""
    return [answer_of(group.problem, completion) for completion in group.completions]
