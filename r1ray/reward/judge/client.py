"""Verdicts over HTTP, from any server that speaks OpenAI's chat completions.

Whatever goes wrong ends as no verdict (None), within a time that is known beforehand: what may be better the next time is tried
again (no connection, no answer in time, 429, 5xx, a reply that holds no verdict), what will not is told once with its remedy.
"""

import hashlib
import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

CACHE_SIZE = 20_000
MAX_BYTES = 4 << 20
"""Of one reply."""
CONNECT_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
TRIED_AGAIN = {408, 429}
"""And all from 500 up."""
DRAWN_AGAIN = 0.6
"""Temperature, at least, after a reply without a verdict: at 0 another seed would give the same reply."""

Read = Callable[[str], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and how verdicts are asked for."""

    urls: tuple[str, ...]
    """Several serve the same; who has failed is not the next to be asked."""
    model: str
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


class Unanswered(Exception):
    """The next try may be answered."""


class Refused(Exception):
    """No further try would be answered: the request, the key or the model is wrong."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """One pool of connections and threads, one memory of verdicts. May be used from any thread."""

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
        self._pool = ThreadPoolExecutor(endpoint.concurrency, thread_name_prefix="judge")
        self._known: OrderedDict[str, float] = OrderedDict()
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self.num_requests = 0
        """Ended, in whatever way."""

    def verdicts(self, prompts: Iterable[str], read: Read) -> dict[str, float | None]:
        """{prompt: what `read` finds in the reply}, each asked once; None where there is no verdict in the end.

        Waits for all: every try and every pause has an end.
        """
        ended = threading.Event()
        futures = {prompt: self._pool.submit(self._verdict, prompt, read, ended) for prompt in dict.fromkeys(prompts)}
        try:
            return {prompt: future.result() for prompt, future in futures.items()}
        finally:  # who was interrupted leaves nothing that goes on trying
            ended.set()
            for future in futures.values():
                future.cancel()

    def _verdict(self, prompt: str, read: Read, ended: threading.Event) -> float | None:
        with self._lock:
            if prompt in self._known:
                self._known.move_to_end(prompt)
                return self._known[prompt]
        number = int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=4).digest())
        temperature, pause_s, why = self._endpoint.temperature, FIRST_PAUSE_S, ""
        refused: set[str] = set()
        for attempt in range(self._endpoint.retries + 1):
            url = self._endpoint.urls[(number + attempt) % len(self._endpoint.urls)]
            try:
                reply = self._ask(url, prompt, seed=(number + attempt) % 2**31, temperature=temperature)
            except Unanswered as error:
                why = str(error)
                if attempt < self._endpoint.retries and ended.wait(pause_s):
                    break
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            except Refused as error:
                self._tell(str(error), once=f"{url} {error.status}")
                refused.add(url)
                if len(refused) == len(self._endpoint.urls):
                    return None
                continue
            if (verdict := read(reply)) is not None:
                return self._remember(prompt, verdict)
            why, temperature = "its replies do not end with a verdict", max(temperature, DRAWN_AGAIN)
        self._tell(
            f"judge {self._endpoint.model}: no verdict after {self._endpoint.retries + 1} tries: {why}",
            once="no verdict",
        )
        return None

    def _ask(self, url: str, prompt: str, *, seed: int, temperature: float) -> str:
        """The judge's words; what a reasoning model has thought apart from its reply is not among them."""
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": self._endpoint.max_tokens,
            "seed": seed,
        }
        body = {name: value for name, value in (body | json.loads(self._endpoint.body)).items() if value is not None}
        try:
            status, content = self._post(f"{url.rstrip('/')}/chat/completions", body)
        except self._failure as error:
            raise Unanswered(f"{url}: {type(error).__name__}: {error}") from error
        finally:
            with self._lock:
                self.num_requests += 1
        if status in TRIED_AGAIN or status >= 500:
            raise Unanswered(f"{url} answers {status}")
        if status != 200:
            raise Refused(self._complaint(url, status, content), status=status)
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
            words = content.decode(errors="replace")
            words = words.replace(self._key, "***") if self._key else words  # before it is cut
            said = f" ({' '.join(words[:300].split())})"
            remedy = f"args.url must end where /chat/completions follows, and args.model is {self._endpoint.model}"
        return f"judge at {url} answers {status}{said}: {remedy}. Its replies are unusable, never 0"

    def _remember(self, prompt: str, verdict: float) -> float:
        with self._lock:
            self._known[prompt] = verdict
            if len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)
        return verdict

    def _tell(self, what: str, *, once: str) -> None:
        """A judge that is gone is gone for every reply of the run; how many that are, the statuses count."""
        with self._lock:
            known = once in self._told
            self._told.add(once)
        if not known:
            log.error("%s", what.replace(self._key, "***") if self._key else what)


def _words(content: bytes) -> str:
    """`choices[0].message.content`, "" where there is none, or it was cut: no verdict then, and another try."""
    try:
        choice: Any = json.loads(content)["choices"][0]
        words: Any = choice["message"]["content"] if choice.get("finish_reason") != "length" else ""
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    return words if isinstance(words, str) else ""


_clients: dict[Endpoint, Client] = {}
_making = threading.Lock()


def client_of(endpoint: Endpoint) -> Client:
    """This process's one client for it."""
    with _making:
        if endpoint not in _clients:
            _clients[endpoint] = Client(endpoint)
        return _clients[endpoint]


def num_requests() -> int:
    """Of this process, by all its clients: while it grows, a worker that waits for judges is not hung."""
    return sum(client.num_requests for client in list(_clients.values()))
