"""Verdicts from the servers of one judge: requested in parallel, with retries, and cached.

Every failure ends as no verdict (None) within a known time. What a retry may solve is retried (no answer in time, a server that is
gone, a completion without a verdict); what it cannot solve is logged once with its remedy.

A judge is asked through a function, a `JudgeFn`. `http` makes those for URLs; `set_own_judges` sets those for the judge actors of
the run.
"""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from r1ray.reward.judge.http import servers_at
from r1ray.reward.judge.server import Endpoint, JudgeFn, PermanentError, Question, RetryableError

log = logging.getLogger(__name__)

CACHE_SIZE = 20_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
RETRY_TEMPERATURE = 0.6
"""Minimum temperature of a retry after a completion without a verdict: at 0 another seed would give the same completion."""

Read = Callable[[str], float | None]


class Client:
    """One thread pool and one cache of verdicts. May be used from any thread."""

    def __init__(self, endpoint: Endpoint, servers: Sequence[JudgeFn]) -> None:
        self._endpoint, self._servers = endpoint, servers
        self._pool = ThreadPoolExecutor(endpoint.concurrency, thread_name_prefix="judge")
        self._known: OrderedDict[str, float] = OrderedDict()
        self._logged: set[str] = set()
        self._lock = threading.Lock()
        self.num_requests = 0
        """Requests that ended, in whatever way."""

    def verdicts(self, prompts: Iterable[str], read: Read) -> dict[str, float | None]:
        """{prompt: what `read` finds in the completion}, each prompt asked once; None where no try gave a verdict.

        Waits for all of them: every try and every pause has an end.
        """
        ended = threading.Event()
        futures = {prompt: self._pool.submit(self._verdict, prompt, read, ended) for prompt in dict.fromkeys(prompts)}
        try:
            return {prompt: future.result() for prompt, future in futures.items()}
        finally:  # after an interrupt no thread keeps retrying
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
        refused: set[int] = set()
        for attempt in range(self._endpoint.retries + 1):
            index = (number + attempt) % len(self._servers)
            question = Question(prompt=prompt, seed=(number + attempt) % 2**31, temperature=temperature)
            try:
                completion = self._ask(index, question)
            except RetryableError as error:
                why = str(error)
                if attempt < self._endpoint.retries and ended.wait(pause_s):
                    break
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            except PermanentError as error:
                self._log_once(str(error), kind=error.kind)
                refused.add(index)
                if len(refused) == len(self._servers):
                    return None
                continue
            if (verdict := read(completion)) is not None:
                return self._remember(prompt, verdict)
            why, temperature = "its completions do not end with a verdict", max(temperature, RETRY_TEMPERATURE)
        name = f"judge {self._endpoint.model or '(judge.path)'}"
        self._log_once(f"{name}: no verdict after {self._endpoint.retries + 1} tries: {why}", kind="no verdict")
        return None

    def _ask(self, index: int, question: Question) -> str:
        try:
            return self._servers[index](question)
        finally:
            with self._lock:
                self.num_requests += 1

    def _remember(self, prompt: str, verdict: float) -> float:
        with self._lock:
            self._known[prompt] = verdict
            if len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)
        return verdict

    def _log_once(self, message: str, *, kind: str) -> None:
        """A judge that is gone fails every completion of the run; the metrics status/* count how many."""
        with self._lock:
            known = kind in self._logged
            self._logged.add(kind)
        if not known:
            log.error("%s", message)


_clients: dict[str, Client] = {}
_making = threading.Lock()
_own_judges: list[Callable[[Endpoint], JudgeFn]] = []


def set_own_judges(judges: Iterable[Callable[[Endpoint], JudgeFn]]) -> None:
    """Let this process use the run's own judges; each makes a JudgeFn for an Endpoint."""
    _own_judges[:] = judges


def client_of(endpoint: Endpoint) -> Client:
    """This process's one client for an endpoint. Raises ValueError where there is no judge to ask."""
    key = endpoint.model_dump_json(include=set(Endpoint.model_fields))
    with _making:
        if key not in _clients:
            servers = servers_at(endpoint) if endpoint.url else [judge(endpoint) for judge in _own_judges]
            if not servers:
                raise ValueError("a judge needs args.url and args.model, or the run's own judges (judge.path)")
            _clients[key] = Client(endpoint, servers)
        return _clients[key]


def num_requests() -> int:
    """Requests that ended, of all clients of this process. While it grows, a worker that waits for judges is not hung."""
    return sum(client.num_requests for client in list(_clients.values()))
