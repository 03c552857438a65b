"""The kinds of stages. The check, the summary and the pipeline know no kind by name.

To add one: a file with `run(context: StageContext)` and a line in KINDS. A kind in your own package needs no line: name its
`StageKind` as `kind: package.module:NAME`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from r1ray import plugin


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKind:
    """Example: `StageKind(run="my_stages:run", trains=False, generates=True)` starts engines and reward workers and no trainer."""

    run: str
    """Import path of a function that takes a `StageContext`; imported when the stage starts, because it needs torch and Ray."""
    trains: bool
    """Starts the policy's trainer and leaves a checkpoint."""
    generates: bool
    """Starts engines and reward workers."""
    Args: type[plugin.Args] = plugin.Args
    """Of `stages.<name>.args`; the run finds them as `StageContext.args`."""

    @property
    def reinforcement(self) -> bool:
        """Trains on what it generates, so it needs an algorithm and rewards; a kind that only trains imitates its data."""
        return self.trains and self.generates


KINDS: Mapping[str, StageKind] = {
    "rl": StageKind(run="r1ray.stages.rl:run", trains=True, generates=True),
    "sft": StageKind(run="r1ray.stages.sft:run", trains=True, generates=False),
    "eval": StageKind(run="r1ray.stages.eval:run", trains=False, generates=True),
}


def kind_of(name: str) -> StageKind:
    """The kind that `stages.<stage>.kind` names. Raises ValueError for an unknown one."""
    return plugin.resolve(name, KINDS, what="kind of stage")
