"""The interface to one judge: a function from a question to the judge's text, wherever the model runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from r1ray.config.base import NonNegativeFloat, NonNegativeInt, PositiveInt
from r1ray.reward.base import RewardArgs


def _listed(urls: Any) -> Any:
    return [] if urls is None else [urls] if isinstance(urls, str) else urls


class Endpoint(RewardArgs):
    """Which judge is asked, and how."""

    url: Annotated[list[str], BeforeValidator(_listed)] = []
    """Of an OpenAI-compatible server, up to and with /v1; or several that serve the same model: each retry asks the next. Null:
    the run's own judges (judge.path)."""
    model: str | None = None
    """The model's name at these servers."""
    temperature: NonNegativeFloat = 0.0
    max_tokens: PositiveInt = 2048
    """Of the judge's completion, its reasoning included."""
    timeout_s: Annotated[float, Field(ge=0.1)] = 60.0
    """Limit of each read from the socket. It also limits the whole request, but that is checked only between reads: a request may
    take up to twice this plus CONNECT_S."""
    retries: NonNegativeInt = 4
    """After the first try; the pauses between them double from half a second to 30 s."""
    concurrency: PositiveInt = 8
    """Requests at a time, of one reward worker."""
    api_key_env: str | None = None
    """The environment variable that holds the key; the key itself is never in a configuration."""
    body: dict[str, Any] = {}
    """More fields of the request: {chat_template_kwargs: {enable_thinking: false}}; null removes one that r1ray sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request to an Endpoint."""

    prompt: str
    seed: int
    temperature: float


JudgeFn = Callable[[Question], str]
"""Asks the judge. Returns its words, without the reasoning that a server separates from them; "" for a completion that was cut.
Raises RetryableError or PermanentError, within a known time.
"""


class RetryableError(Exception):
    """A retry may succeed."""


class PermanentError(Exception):
    """No retry at this server would succeed: the request, the key or the model is invalid."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
        """Only the first refusal of a kind is logged."""
