"""Fixtures of several unit test files."""

import logging
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from omegaconf import DictConfig

from r1ray.cli import compose
from r1ray.run import stop


@pytest.fixture(scope="module")
def base() -> DictConfig:
    """The composed defaults, for `laid_over_defaults.check_values`."""
    return compose([])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, in which there is no run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def signals_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the signal handlers and the state of a stop."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(stop, "_received", None)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def dashboard() -> Iterator[Any]:
    """A server that responds with `dashboard.status`, like a dashboard to a request without a token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session", autouse=True)
def compose_once() -> Iterator[None]:
    """Hydra composes each configuration twice, the first time only to read `hydra.mode`, which no test sets: half of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", lambda *args, **kwargs: None)
        yield


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Restores the root logger: Hydra's `--info` sets it to DEBUG, and every later configuration would be printed."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
