"""Call the algorithm for the advantages of a step, and check what it returns: it may be a user's own."""

from collections.abc import Sequence

import numpy as np

from r1ray.algo.base import Algorithm, State
from r1ray.plugin_errors import definition_of, failing_as_plugin
from r1ray.types import Sample


def advantages_of(algo: Algorithm, samples: Sequence[Sample], state: State, *, name: str) -> list[Sample]:
    """The samples with advantages. Raises PluginFailed when the algorithm raises, or a token that is trained on has no finite one.

    Args:
        name: `algo.name`, for messages.
    """
    with failing_as_plugin(f"the advantages of algo.name={name}"):
        made = list(algo.advantages(samples, state))
        for sample in made:
            if reason := _fault(sample):
                raise ValueError(
                    f"completion {sample.index} of problem {sample.group_id} (problem@epoch) {reason}; the method is at "
                    f"{definition_of(algo.advantages)}"
                )
    return made


def _fault(sample: Sample) -> str | None:
    trained_T = sample.mask_T > 0
    if not trained_T.any():
        return None
    if sample.advantages_T is None:
        return "has no advantages"
    wrong_T = np.flatnonzero(trained_T & ~np.isfinite(sample.advantages_T))
    if not len(wrong_T):
        return None
    reward = "" if sample.score is None else f" (its reward is {sample.score.reward:g})"
    return f"has the advantage {sample.advantages_T[wrong_T[0]]} at {len(wrong_T)} tokens{reward}"
