"""The records that flow through r1ray, in the order in which a step makes them.

    Problem -> Completion -> Score -> Group -> Collected -> Sample -> Row -> Batch

All are frozen, keyword-only and complete when built (a later stage makes a new one with `dataclasses.replace`). Arrays are
numpy, int32 or float32, so that Ray ships them out of band. Nothing here imports ray, vllm, deepspeed or torch.

Shape suffixes, used everywhere:
    P problems of a step        G completions of one problem (the group)      N samples of a step (P * G)
    T tokens of one sequence    L tokens of one packed row                D data-parallel ranks        V vocabulary

Index t of every per-token array is token t: its log-probability given the tokens before t, the value *before* it. The shift
between logits and labels lives in one function, `r1ray.model.forward.row_tensors`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

FinishReason = Literal["stop", "length", "abort"]
Status = Literal[
    "ok", "wrong_answer", "timeout", "memory", "runtime_error", "output_limit", "compile_error", "sandbox_error"
]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message: `Message(role="user", content="What is 2 + 2?")`."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One prompt and what is needed to verify its completions. Problems are identified by `id`, never by text.

    Example: the Countdown problem "make 11 of 2, 3, 5" rendered with the r1_zero template::

        Problem(id="countdown/2-3-5=11", source="countdown", messages=(Message(role="user", content="..."),),
                prompt_ids_T=np.array([5, 9, 4], np.int32), verifier="countdown",
                payload={"numbers": [2, 3, 5], "target": 11})
    """

    id: str
    source: str
    messages: tuple[Message, ...]
    prompt_ids_T: Ints
    """Rendered and tokenized once, by r1ray: exactly one BOS if the tokenizer has one."""
    verifier: str
    """What decides correctness: a name in `r1ray.reward.accuracy.VERIFIERS`."""
    payload: Mapping[str, Any]
    """What the verifier reads: {"answers": [...]}, {"tests": ...} or fields that only this source has."""
    prefill: str = ""
    """The end of the prompt that already belongs to the completion ("<think>"): rewards see prefill + text."""
    accuracy: str = "accuracy"
    """The reward component from which `Score.correct` is read."""
    extract: str | None = None
    """How the final answer is extracted: a name in `r1ray.reward.answers.EXTRACTORS`; None: the default of the verifier."""
    language: str = "en"
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        _check_dtype(self, ints=("prompt_ids_T",))
        if len(self.prompt_ids_T) == 0:
            raise ValueError(f"problem {self.id}: the prompt has no tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Tokens [start, end) of a completion were sampled from weights `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One completion as the engine produced it; its tokens are trained on as they are, never tokenized again.

    The sampled EOS is the last token of `token_ids_T` if `finish_reason` is "stop"; nothing is appended to a completion cut at
    the limit. `text` keeps special tokens and loses only that final EOS. A completion that ended at one of the `rollout.stop`
    texts is "stop" too, without an EOS: its last token, which completes the stop text, is kept whole, so `text` may continue
    for a few characters after the stop text.

    Example: two tokens and an EOS (id 1) sampled from version 4::

        Completion(token_ids_T=np.array([7, 8, 1], np.int32), rollout_logprobs_T=np.array([-.1, -.7, 0], np.float32),
                   temperature=1.0, text="ab", finish_reason="stop", versions=(VersionSpan(version=4, start=0, end=3),))
    """

    token_ids_T: Ints
    rollout_logprobs_T: Floats
    """Under the distribution sampled from (after temperature), the behaviour policy."""
    temperature: float
    text: str
    finish_reason: FinishReason
    versions: tuple[VersionSpan, ...]

    def __post_init__(self) -> None:
        _check_dtype(self, ints=("token_ids_T",), floats=("rollout_logprobs_T",))
        _check_lengths(self, len(self.token_ids_T), "rollout_logprobs_T")

    @property
    def truncated(self) -> bool:
        return self.finish_reason != "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentError:
    """Why a reward component's own code gave a completion no score: it raised an exception, or returned what is no reward.

    Example: `ComponentError(message="NameError: name 'n' is not defined", place="my_rewards.py:12 in brief", traceback="...")`.
    """

    message: str
    place: str
    traceback: str
    """Of the exception; for an invalid value a sentence that says what was returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The rewards of one completion.

    `reward` is the weighted sum that is trained on. `correct` comes from the component that the problem names as its accuracy:
    solve_rate, filters and evaluation read it, never `reward`. A component that is None does not apply to this problem. A sample
    with `usable=False` is masked and left out of every baseline: infrastructure failures are never trained on as a reward.

    Example: correct answer, bad format, weights 1.0 and 0.1::

        Score(reward=1.0, correct=True, components={"accuracy": 1.0, "format": 0.0},
              statuses={"accuracy": "ok", "format": "wrong_answer"}, usable=True, seconds=0.002)
    """

    reward: float
    correct: bool | None
    components: Mapping[str, float | None]
    statuses: Mapping[str, Status]
    usable: bool
    seconds: float
    token_rewards_T: Floats | None = None
    errors: Mapping[str, ComponentError] = field(default_factory=dict[str, ComponentError])
    """{component whose own code failed: why}; their status is sandbox_error. A failure of the infrastructure is not listed here."""

    def __post_init__(self) -> None:
        unknown = set(self.statuses.values()) - set(STATUSES)
        if unknown:
            raise ValueError(f"unknown status {sorted(unknown)}; known: {', '.join(STATUSES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The G completions of one problem with their scores. `attempt` counts how often the whole group was regenerated.

    Example: `Group(problem=p, completions=(a, b), scores=(s, t), epoch=0, attempt=0)`.
    """

    problem: Problem
    completions: tuple[Completion, ...]
    scores: tuple[Score, ...]
    epoch: int = 0
    attempt: int = 0

    def __post_init__(self) -> None:
        if len(self.completions) != len(self.scores):
            raise ValueError(
                f"group {self.problem.id}: {len(self.completions)} completions but {len(self.scores)} scores"
            )

    @property
    def solve_rate(self) -> float | None:
        """Mean of `correct` over the usable completions that have it; None if correctness does not apply."""
        known = [s.correct for s in self.scores if s.usable and s.correct is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The groups of one step (`r1ray.collect`): `kept` is trained on, metrics are taken over `generated`, before any filter.

    Example: a step of 4 groups; the filter rejected 2 of the first 4, so 2 more were generated, and 1 problem could not be scored::

        Collected(kept=[g0, g2, g5, g6], generated=[g0, g1, g2, g3, g5, g6], failed=["countdown/7"], refilled=3, backfilled=0,
                  regenerated=2, rescored=6, rollout_s=8.1, reward_s=0.4)
    """

    kept: list[Group]
    generated: list[Group]
    failed: list[str]
    """Ids of problems given up after rollout.max_attempts."""
    refilled: int
    """Groups dispatched beyond the first P, in place of rejected or failed ones."""
    backfilled: int
    """Of `kept`: groups that the filter rejected (algo.filter.min_share below 1)."""
    regenerated: int
    rescored: int
    rollout_s: float
    """From the first dispatch to the last completion."""
    reward_s: float
    """From the last completion to the last score: the time that scoring added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training sequence: prompt and completion. Fields that have not been computed are None.

    Example: prompt [5, 9], completion [7, 1], advantage 1::

        Sample(token_ids_T=[5, 9, 7, 1], mask_T=[0, 0, 1, 1], rollout_logprobs_T=[0, 0, -.1, -.2], temperature=1.0,
               advantages_T=[0, 0, 1, 1], score=score, finish_reason="stop", group_id="countdown/2-3-5=11", index=0)
    """

    token_ids_T: Ints
    mask_T: Floats
    """1 on the tokens of the completion (including EOS), 0 on the prompt. All 0 for a sample that must not be trained on."""
    rollout_logprobs_T: Floats
    """0 where mask_T is 0."""
    temperature: float
    group_id: str
    index: int
    score: Score | None = None
    finish_reason: FinishReason = "stop"
    versions: tuple[VersionSpan, ...] = ()
    old_logprobs_T: Floats | None = None
    """The trainer's, before the first update of the step. None: the policy has not changed, so its detached log-probs are used."""
    ref_logprobs_T: Floats | None = None
    old_values_T: Floats | None = None
    """The critic's value before each token, computed before the first update of the step."""
    process_rewards_T: Floats | None = None
    advantages_T: Floats | None = None
    returns_T: Floats | None = None
    """What a critic learns."""
    outcomes_T: Floats | None = None
    """What PRIME's process reward model learns: 1 on every token of a correct completion, 0 elsewhere."""

    def __post_init__(self) -> None:
        floats = ("mask_T", "rollout_logprobs_T", "old_logprobs_T", "ref_logprobs_T", "old_values_T")
        floats += ("process_rewards_T", "advantages_T", "returns_T", "outcomes_T")
        _check_dtype(self, ints=("token_ids_T",), floats=floats)
        _check_lengths(self, len(self.token_ids_T), *floats)

    @property
    def usable(self) -> bool:
        return self.score is None or self.score.usable


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Sequences packed end to end, without padding; one forward pass of the trainer.

    Example: two sequences of 3 and 2 tokens::

        token_ids_L [5, 7, 1, 6, 1]   positions_L [0, 1, 2, 0, 1]   segment_L [0, 0, 0, 1, 1]   mask_L [0, 1, 1, 0, 1]
    """

    token_ids_L: Ints
    positions_L: Ints
    """Restarts at 0 with every sequence."""
    segment_L: Ints
    """The sequence of the row to which a token belongs: 0, 1, 2, ... without gaps."""
    pair_L: Ints
    """The preference pair to which a token belongs; -1 if there is none. A pair is never split over rows."""
    sample_L: Ints
    """Index of the sample in the list that was packed; -1 in an empty row."""
    mask_L: Floats
    temperature_L: Floats
    """Temperature at which the token was sampled; the trainer divides the logits by it."""
    rollout_logprobs_L: Floats
    weights_L: Mapping[str, Floats]
    """{loss term: weight_L}: the step's loss is the plain sum of weight * loss over all tokens, rows and ranks."""
    old_logprobs_L: Floats | None = None
    ref_logprobs_L: Floats | None = None
    old_values_L: Floats | None = None
    advantages_L: Floats | None = None
    returns_L: Floats | None = None
    outcomes_L: Floats | None = None

    def __post_init__(self) -> None:
        ints = ("positions_L", "segment_L", "pair_L", "sample_L")
        floats = ("mask_L", "temperature_L", "rollout_logprobs_L", "old_logprobs_L", "ref_logprobs_L", "old_values_L")
        floats += ("advantages_L", "returns_L", "outcomes_L")
        _check_dtype(self, ints=("token_ids_L", *ints), floats=floats)
        _check_lengths(self, len(self.token_ids_L), *ints, *floats)
        for term, weight_L in self.weights_L.items():
            if len(weight_L) != len(self.token_ids_L):
                raise ValueError(
                    f"Row.weights_L[{term}] has {len(weight_L)} entries for {len(self.token_ids_L)} tokens"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The rows of one optimizer step, distributed over D ranks: `rows[d]` are those of rank d, the same number on every rank.
    (With `trainer.sequence_parallel`, ranks that share rows count as one.)

    A rank with too few sequences gets empty rows (two tokens, every weight 0), because ZeRO-2 and 3 communicate in every
    backward pass and all ranks must run the same number of them.
    """

    rows: tuple[tuple[Row, ...], ...]
    num_samples: int
    num_tokens: int

    def __post_init__(self) -> None:
        if len({len(rank) for rank in self.rows}) > 1:
            raise ValueError(f"ranks have unequal row counts: {[len(rank) for rank in self.rows]}")


def _check_dtype(record: Any, ints: tuple[str, ...] = (), floats: tuple[str, ...] = ()) -> None:
    for names, dtype in ((ints, np.int32), (floats, np.float32)):
        for name in names:
            array = getattr(record, name)
            ok = getattr(array, "dtype", None) == dtype and array.ndim == 1
            if array is None or ok:
                continue
            kind = f"{array.dtype}[{array.ndim}d]" if hasattr(array, "dtype") else type(array).__name__
            raise ValueError(f"{type(record).__name__}.{name} must be a 1-d {np.dtype(dtype)} array, not {kind}")


def _check_lengths(record: Any, length: int, *names: str) -> None:
    for name in names:
        array = getattr(record, name)
        if array is not None and len(array) != length:
            raise ValueError(f"{type(record).__name__}.{name} has {len(array)} entries for {length} tokens")
