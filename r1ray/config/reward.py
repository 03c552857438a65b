"""Rewards, and where programs run."""

from typing import Any, Literal

from r1ray.config.base import AbovePositive, NotEmpty, NotNegative, Positive, Strict


class RewardComponentConfig(Strict):
    name: str | None = None
    """A name in r1ray.reward.REWARDS or `package.module:function`; null: the component's own key."""
    weight: float = 1.0
    """0: computed and logged, not trained on."""
    schedule: dict[int, float] = {}
    """{step from which on: another weight}, as in {100: 0.5}."""
    sources: list[str] | None = None
    """Those of data.train and eval.sets whose problems it applies to; null: all."""
    args: dict[str, Any] = {}

    @property
    def weighs(self) -> bool:
        """Whether it is ever trained on."""
        return any((self.weight, *self.schedule.values()))


class RewardConfig(Strict):
    components: dict[str, RewardComponentConfig]
    num_workers: Positive
    cpus_per_worker: NotNegative
    timeout_s: AbovePositive
    """A worker that has something to score and finishes nothing for so long counts as hung: it is started again."""
    local: bool
    """Only for `r1ray.grade`: score in processes of this machine, without Ray."""
    outage_timeout_s: NotNegative
    """How long a step waits when nothing can be scored (a judge or a sandbox is down) before the run ends; 0: it does not wait, its
    problems are dropped."""
    truncated: Literal["zero", "score", "mask"]
    """What a completion cut at the limit earns: 0, its score as it is, or nothing (left out of the loss)."""


class SandboxConfig(Strict):
    """Where model-written programs run. Opened only by runs whose data asks for programs."""

    url: str | None
    """A service that speaks SandboxFusion's /run_code (`r1ray.sandbox.remote`); null: this machine, in the tiers below."""
    min_tier: Literal["T1", "T1-noproc", "T2"]
    """The weakest that is accepted (`r1ray.sandbox.base.Tier`); the strongest that works is taken."""
    python: NotEmpty
    """The interpreter that runs them; everybody must be able to read it."""
    packages: list[str]
    """What that interpreter has installed and programs may import besides the standard library: [numpy, sympy]."""
