"""What a reward is: a pure function `reward(problem, completions_G, context)`, or `reward(problem, completions_G, context, args)`
where it declares arguments (`r1ray.plugin.arguments`). It returns a ComponentScore or a number for each completion.

    @per_completion
    @arguments(LimitArgs)
    def short(problem: Problem, text: str, args: LimitArgs) -> ComponentScore: ...

A reward that does not apply to a problem returns value None with status "ok" for the whole group. A reward that applies, but failed
for a reason other than the completion (a judge, a sandbox, a model), returns value None with status "sandbox_error": the sample
becomes unusable, is scored again elsewhere, and is masked if that fails too. It is never scored 0.

A reward that raises an exception makes its completions unusable too; with `per_completion` only the one on which it raised. When it
raises on every completion, the run ends (`r1ray.collect.reward_errors`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from r1ray.plugin import Args
from r1ray.plugin_errors import is_outage, message_of, place_of, traceback_of
from r1ray.sandbox.base import SandboxUnavailable
from r1ray.types import Completion, ComponentError, Problem, Status

P = ParamSpec("P")
SUM, WORKER = "weighted sum", "reward worker"
"""Names in `Score.errors` that are no component: the sum of all is no reward; two workers ended while they scored the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentScore:
    """One component's score of one completion. `correct` is None where the component does not judge correctness."""

    value: float | None
    status: Status = "ok"
    correct: bool | None = None
    error: ComponentError | None = None
    """Why the reward's own code failed (`failed_by`)."""


def failed_by(error: BaseException) -> ComponentScore:
    """The score of a completion on which a reward raised an exception.

    Raises SandboxUnavailable, which neither a retry nor another worker would change, and KeyboardInterrupt.
    """
    if isinstance(error, SandboxUnavailable | KeyboardInterrupt):
        raise error
    own = (
        None
        if is_outage(error)
        else ComponentError(message=message_of(error), place=place_of(error), traceback=traceback_of(error))
    )
    return ComponentScore(value=None, status="sandbox_error", error=own)


def correct_or_incorrect(correct: bool) -> ComponentScore:
    """The score that a verifier gives an answer: 1 when it is correct, else 0."""
    return ComponentScore(value=float(correct), status="ok" if correct else "wrong_answer", correct=correct)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardContext:
    """What a reward may use besides the problem and the completions."""

    step: int
    seed: int
    """hash(run seed, problem id, epoch, attempt): for rewards that draw random numbers (a random control reward); completion k uses
    seed + k."""
    max_response_length: int
    correct_G: Sequence[bool | None] = ()
    """The verdicts of the problem's accuracy component, for rewards that shape them; empty where there is no such component."""


class RewardArgs(Args):
    """Arguments of a reward that needs something of the run or of its problems."""

    @property
    def uses_run_judges(self) -> bool:
        """Whether it asks the judges that the run itself starts (`judge.path`)."""
        return False

    def cannot_score(self, payload: Mapping[str, Any]) -> tuple[str, str] | None:
        """(reason, remedy) when problems with such a payload cannot be scored; the check tries the first of each source."""
        return None


GroupReward = Callable[Concatenate[Problem, Sequence[Completion], RewardContext, P], list[ComponentScore]]


def response_text(problem: Problem, completion: Completion) -> str:
    """The text that rewards read: the template's prefill + the completion's text."""
    return problem.prefill + completion.text


def per_group(score: Callable[Concatenate[Problem, Sequence[str], P], list[ComponentScore]]) -> GroupReward[P]:
    """Lift a function of (problem, texts of the group) to a reward. It reads no tokens (`reads_tokens`)."""

    @wraps(score)
    def reward(
        problem: Problem,
        completions_G: Sequence[Completion],
        context: RewardContext,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> list[ComponentScore]:
        texts_G = [response_text(problem, completion) for completion in completions_G]
        return score(problem, texts_G, *args, **kwargs)

    reward.reads_tokens = False  # type: ignore[attr-defined]
    return reward


def per_completion(score: Callable[Concatenate[Problem, str, P], ComponentScore]) -> GroupReward[P]:
    """Lift a function of (problem, text of one completion) to a reward. It reads no tokens (`reads_tokens`).

    An exception makes only the completion unusable on which it was raised.
    """

    @wraps(score)
    def group_score(
        problem: Problem, texts_G: Sequence[str], *args: P.args, **kwargs: P.kwargs
    ) -> list[ComponentScore]:
        return [one(problem, text, *args, **kwargs) for text in texts_G]

    def one(problem: Problem, text: str, *args: P.args, **kwargs: P.kwargs) -> ComponentScore:
        try:
            return score(problem, text, *args, **kwargs)
        except BaseException as error:
            return failed_by(error)

    return per_group(group_score)


def reads_tokens(reward: Callable[..., object]) -> bool:
    """Whether a reward may look at the tokens of a completion, not only at its text."""
    return getattr(reward, "reads_tokens", True)
