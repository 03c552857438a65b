"""Judges at an address: any server with OpenAI's chat completions API, through OpenAI's client.

`r1ray.reward.judge.client` does the retries, with another seed, temperature or server. OpenAI's own are off.
"""

import json
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from r1ray.reward.judge.server import Endpoint, JudgeFn, PermanentError, Question, RetryableError

MAX_BYTES = 4 << 20
"""Of one completion."""
CONNECT_S = 10.0
RETRIED = {408, 429}
"""Status codes; all from 500 up too."""


def servers_at(endpoint: Endpoint) -> list[JudgeFn]:
    """One for each of its urls."""
    asker = Asker(endpoint)
    return [partial(asker.ask, url) for url in endpoint.url]


class Asker:
    """One pool of connections. May be used from any thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        import openai  # not at the top: the configuration check loads this module, and openai takes a second

        self._endpoint, self._openai = endpoint, openai
        self._key = os.environ.get(endpoint.api_key_env, "").strip() if endpoint.api_key_env else ""
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError(
                f"the value of {endpoint.api_key_env} is no key: it has characters that no header may have"
            )
        self._headers: Any = {} if self._key else {"Authorization": openai.Omit()}
        timeout = openai.Timeout(endpoint.timeout_s, connect=min(endpoint.timeout_s, CONNECT_S))
        http = openai.DefaultHttpxClient(follow_redirects=False)
        self._clients = {
            url: openai.OpenAI(
                base_url=url, api_key=self._key or "none", timeout=timeout, max_retries=0, http_client=http
            )
            for url in endpoint.url
        }

    def ask(self, url: str, question: Question) -> str:
        """The text that the server at this url returns."""
        fields: dict[str, Any] = {
            "temperature": question.temperature,
            "max_tokens": self._endpoint.max_tokens,
            "seed": question.seed,
        } | self._endpoint.body
        deadline = time.monotonic() + self._endpoint.timeout_s
        try:
            with self._clients[url].chat.completions.with_streaming_response.create(
                model=str(self._endpoint.model),
                messages=[{"role": "user", "content": question.prompt}],
                extra_body={name: value for name, value in fields.items() if value is not None},
                extra_headers=self._headers,
            ) as response:
                return _words(self._read(url, response.iter_bytes(), deadline))
        except self._openai.APIStatusError as error:
            if error.status_code in RETRIED or error.status_code >= 500:
                raise RetryableError(f"{url} answers {error.status_code}") from error
            complaint = self._complaint(url, error.status_code, error.response.text)
            raise PermanentError(complaint, kind=f"{url} {error.status_code}") from error
        except self._openai.APIConnectionError as error:
            raise RetryableError(self._without_key(f"{url}: {error.__cause__ or error!r}")) from error

    def _read(self, url: str, pieces: Iterator[bytes], deadline: float) -> bytes:
        """Piece by piece: some servers keep a connection open for minutes with blank lines."""
        content = b""
        while time.monotonic() <= deadline and len(content) <= MAX_BYTES:
            try:
                piece = next(pieces, None)
            except Exception as error:  # of whichever HTTP library is below openai
                raise RetryableError(f"{url}: {error!r}") from error
            if piece is None:
                return content
            content += piece
        raise RetryableError(f"{url}: no answer of at most {MAX_BYTES} bytes within {self._endpoint.timeout_s:g} s")

    def _complaint(self, url: str, status: int, content: str) -> str:
        """One line: the server's message and the remedy."""
        variable = self._endpoint.api_key_env
        if status in (401, 403):  # the server's message may quote the key
            remedy = f"put a key that is valid for {self._endpoint.model} into {variable}, where the reward workers run"
            said = "" if self._key else f" ({variable} is not set)" if variable else " (no key was sent)"
            if not variable:
                remedy = "name the environment variable that holds the key as args.api_key_env"
        else:
            said = (
                f" ({' '.join(self._without_key(content)[:300].split())})"  # the key is removed before the text is cut
            )
            remedy = f"args.url must end where /chat/completions follows, and args.model is {self._endpoint.model}"
        return f"judge at {url} answers {status}{said}: {remedy}. Its completions are unusable, never 0"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _words(content: bytes) -> str:
    """`choices[0].message.content`; "" where there is none, or it was cut: that is no verdict, so it is asked for again."""
    try:
        choice: Any = json.loads(content)["choices"][0]
        words: Any = choice["message"]["content"] if choice.get("finish_reason") != "length" else ""
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    return words if isinstance(words, str) else ""
