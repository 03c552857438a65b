"""How completions are sampled: what the engine can do and the trainer can follow."""

from collections.abc import Iterator

from r1ray.config.view import StageView
from r1ray.mistakes import Finding


def whole_distribution(view: StageView) -> Iterator[Finding]:
    rollout = view.rollout
    for key, value, only in (("top_p", rollout.top_p, 1.0), ("top_k", rollout.top_k, -1)):
        if value != only:
            rule = "the trainer's log-probs are of the whole distribution; a cut one would be trained on wrongly"
            remedy = f"rollout.{key}={only:g}; for less random samples lower rollout.temperature; eval.top_p may have any value"
            yield view.mistake(f"rollout.{key}", rule, remedy)


def evaluation_temperature(view: StageView) -> Iterator[Finding]:
    if 0 < view.eval.temperature < 0.01:
        rule = "vLLM samples at temperatures from 0.01, or greedily at 0"
        yield view.mistake("eval.temperature", rule, "eval.temperature=0, or 0.01 and up")


def temperature_schedule(view: StageView) -> Iterator[Finding]:
    steps, rollout = view.steps, view.rollout
    for step in rollout.temperature_schedule:
        if step > steps:
            key, rule = f"rollout.temperature_schedule.{step}", f"the stage ends after {steps} steps"
            yield view.mistake(key, rule, f"an earlier step, or steps={step} and more")
