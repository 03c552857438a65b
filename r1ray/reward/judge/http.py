"""Judges at an address: any server that speaks OpenAI's chat completions."""

import json
import os
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from r1ray.reward.judge.server import Endpoint, Question, Refused, Server, Unanswered

MAX_BYTES = 4 << 20
"""Of one completion."""
CONNECT_S = 10.0
TRIED_AGAIN = {408, 429}
"""And all from 500 up."""


def servers_at(endpoint: Endpoint) -> list[Server]:
    """One for each of its urls."""
    asker = Asker(endpoint)
    return [partial(asker.ask, url) for url in endpoint.urls]


class Asker:
    """One pool of connections. May be used from any thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        import httpx  # not at the top: the configuration check loads this module, and need not wait for httpx

        self._endpoint = endpoint
        self._key = os.environ.get(endpoint.api_key_env, "").strip() if endpoint.api_key_env else ""
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError(f"what {endpoint.api_key_env} holds is no key: it has characters that no header may have")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._http = httpx.Client(
            timeout=httpx.Timeout(endpoint.timeout_s, connect=min(endpoint.timeout_s, CONNECT_S)),
            limits=httpx.Limits(max_connections=endpoint.concurrency),
            headers=headers,
        )
        self._failure = httpx.HTTPError

    def ask(self, url: str, question: Question) -> str:
        """The words of the server at this url."""
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": question.prompt}],
            "temperature": question.temperature,
            "max_tokens": self._endpoint.max_tokens,
            "seed": question.seed,
        }
        body = {name: value for name, value in (body | json.loads(self._endpoint.body)).items() if value is not None}
        try:
            status, content = self._post(f"{url.rstrip('/')}/chat/completions", body)
        except self._failure as error:
            raise Unanswered(self._without_key(f"{url}: {type(error).__name__}: {error}")) from error
        if status in TRIED_AGAIN or status >= 500:
            raise Unanswered(f"{url} answers {status}")
        if status != 200:
            raise Refused(self._without_key(self._complaint(url, status, content)), kind=f"{url} {status}")
        return _words(content)

    def _post(self, url: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and content. Read piece by piece: there are servers that keep a connection warm with blank lines for minutes."""
        deadline = time.monotonic() + self._endpoint.timeout_s
        content = b""
        with self._http.stream("POST", url, json=body) as response:
            for piece in response.iter_bytes():
                content += piece
                if time.monotonic() > deadline:
                    raise Unanswered(f"{url}: no answer within {self._endpoint.timeout_s:g} s")
                if len(content) > MAX_BYTES:
                    raise Unanswered(f"{url}: more than {MAX_BYTES} bytes")
            return response.status_code, content

    def _complaint(self, url: str, status: int, content: bytes) -> str:
        """One line: what was said, and the remedy."""
        variable = self._endpoint.api_key_env
        if status in (401, 403):  # the server's own words may quote the key
            remedy = f"put a key that is good for {self._endpoint.model} into {variable}, where the reward workers run"
            said = "" if self._key else f" ({variable} is not set)" if variable else " (no key was sent)"
            if not variable:
                remedy = "name the environment variable that holds the key as args.api_key_env"
        else:
            words = self._without_key(content.decode(errors="replace"))  # before it is cut
            said = f" ({' '.join(words[:300].split())})"
            remedy = f"args.url must end where /chat/completions follows, and args.model is {self._endpoint.model}"
        return f"judge at {url} answers {status}{said}: {remedy}. Its completions are unusable, never 0"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _words(content: bytes) -> str:
    """`choices[0].message.content`, "" where there is none, or it was cut: no verdict then, and another try."""
    try:
        choice: Any = json.loads(content)["choices"][0]
        words: Any = choice["message"]["content"] if choice.get("finish_reason") != "length" else ""
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    return words if isinstance(words, str) else ""
