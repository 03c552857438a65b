"""Verdicts from the servers of one judge: asked in parallel, tried again, remembered.

Whatever goes wrong ends as no verdict (None), within a time that is known beforehand: what may be better the next time is tried
again (no answer in time, a server that is gone, a completion that holds no verdict), what will not is told once with its remedy.

A server is a function. Those with an address are asked over HTTP (`http`), those of the run's own by whoever has them (`ours`).
"""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from r1ray.reward.judge.http import servers_at
from r1ray.reward.judge.server import Endpoint, Question, Refused, Server, Unanswered

log = logging.getLogger(__name__)

CACHE_SIZE = 20_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
DRAWN_AGAIN = 0.6
"""Temperature, at least, after a completion without a verdict: at 0 another seed would give the same completion."""

Read = Callable[[str], float | None]


class Client:
    """One pool of threads, one memory of verdicts. May be used from any thread."""

    def __init__(self, endpoint: Endpoint, servers: Sequence[Server]) -> None:
        self._endpoint, self._servers = endpoint, servers
        self._pool = ThreadPoolExecutor(endpoint.concurrency, thread_name_prefix="judge")
        self._known: OrderedDict[str, float] = OrderedDict()
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self.num_requests = 0
        """Ended, in whatever way."""

    def verdicts(self, prompts: Iterable[str], read: Read) -> dict[str, float | None]:
        """{prompt: what `read` finds in the completion}, each asked once; None where there is no verdict in the end.

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
        refused: set[int] = set()
        for attempt in range(self._endpoint.retries + 1):
            turn = (number + attempt) % len(self._servers)
            question = Question(prompt=prompt, seed=(number + attempt) % 2**31, temperature=temperature)
            try:
                completion = self._ask(turn, question)
            except Unanswered as error:
                why = str(error)
                if attempt < self._endpoint.retries and ended.wait(pause_s):
                    break
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            except Refused as error:
                self._tell(str(error), once=error.kind)
                refused.add(turn)
                if len(refused) == len(self._servers):
                    return None
                continue
            if (verdict := read(completion)) is not None:
                return self._remember(prompt, verdict)
            why, temperature = "its completions do not end with a verdict", max(temperature, DRAWN_AGAIN)
        name = f"judge {self._endpoint.model or '(judge.path)'}"
        self._tell(f"{name}: no verdict after {self._endpoint.retries + 1} tries: {why}", once="no verdict")
        return None

    def _ask(self, turn: int, question: Question) -> str:
        try:
            return self._servers[turn](question)
        finally:
            with self._lock:
                self.num_requests += 1

    def _remember(self, prompt: str, verdict: float) -> float:
        with self._lock:
            self._known[prompt] = verdict
            if len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)
        return verdict

    def _tell(self, what: str, *, once: str) -> None:
        """A judge that is gone is gone for every completion of the run; how many that are, the statuses count."""
        with self._lock:
            known = once in self._told
            self._told.add(once)
        if not known:
            log.error("%s", what)


_clients: dict[Endpoint, Client] = {}
_making = threading.Lock()
_ours: list[Callable[[Endpoint], Server]] = []


def ours(servers: Iterable[Callable[[Endpoint], Server]]) -> None:
    """Tell this process of the run's own judges; each makes a Server of an Endpoint's settings."""
    _ours[:] = servers


def client_of(endpoint: Endpoint) -> Client:
    """This process's one client for it. Raises ValueError where nobody could be asked."""
    with _making:
        if endpoint not in _clients:
            servers = servers_at(endpoint) if endpoint.urls else [server(endpoint) for server in _ours]
            if not servers:
                raise ValueError("a judge needs args.url and args.model, or judges of the run's own (judge.path)")
            _clients[endpoint] = Client(endpoint, servers)
        return _clients[endpoint]


def num_requests() -> int:
    """Of this process, by all its clients: while it grows, a worker that waits for judges is not hung."""
    return sum(client.num_requests for client in list(_clients.values()))
