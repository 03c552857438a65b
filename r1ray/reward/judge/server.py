"""What answers for a judge: a function from a question to its words, whatever stands behind it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and how verdicts are asked for."""

    urls: tuple[str, ...]
    """Several serve the same; who has failed is not the next to be asked. None: the run's own judges are asked."""
    model: str | None
    """What a server at a url is asked for; the run's own have one model."""
    temperature: float
    max_tokens: int
    timeout_s: float
    """Until the answer begins, and from the request to the answer's end: one request takes less than twice this and CONNECT_S."""
    retries: int
    concurrency: int
    """Requests at a time, of this process."""
    api_key_env: str | None
    """The environment variable that holds the key; the key itself stands nowhere."""
    body: str
    """JSON: more fields of the request; null takes one of ours out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request, of the many that an Endpoint's settings are for."""

    prompt: str
    seed: int
    temperature: float


Server = Callable[[Question], str]
"""Gives the judge's words, without what a reasoning model has thought apart from its completion; "" for a completion that was
cut. Raises Unanswered or Refused, within a known time.
"""


class Unanswered(Exception):
    """The next try may be answered."""


class Refused(Exception):
    """No further try would be answered by this server: the request, the key or the model is wrong."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
        """One of each is told."""
