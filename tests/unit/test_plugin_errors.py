"""Exceptions of plug-ins: the place that is shown, and whether the plug-in or the infrastructure is at fault, by origin."""

import errno
import http.client
import json
import runpy
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from r1ray import plugin_errors
from r1ray.plugin_errors import PluginFailed, failing_as_plugin, is_outage, message_of, place_of, users_traceback


def caught(function: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:
        function()
    return info.value


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def connects_itself() -> None:
    socket.socket().connect(("127.0.0.1", free_port()))


def wraps(library: Callable[[], object]) -> Callable[[], None]:
    def reward() -> None:
        try:
            library()
        except Exception as error:
            raise RuntimeError("the judge failed") from error

    return reward


def wraps_without_from(library: Callable[[], object]) -> Callable[[], None]:
    def reward() -> None:
        try:
            library()
        except Exception:
            raise ValueError("no verdict")  # noqa: B904 - as users write it

    return reward


def times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=0.01)
        http.client.HTTPResponse(client).begin()


def answers(status: int) -> Callable[[], None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, format: str, *args: Any) -> None: ...

    def asks() -> None:
        server = HTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.handle_request, daemon=True).start()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/")
        finally:
            server.server_close()

    return asks


class ClientError(Exception):
    """As those of client libraries that keep the response."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = SimpleNamespace(status_code=status)


def raises(error: BaseException) -> Callable[[], None]:
    def reward() -> None:
        raise error

    return reward


def refused() -> None:
    socket.create_connection(("127.0.0.1", free_port()))


def asks_refused() -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{free_port()}/")


def group_of(library: Callable[[], object]) -> Callable[[], None]:
    def reward() -> None:
        raise ExceptionGroup("two requests", [caught(library), ValueError("bad")])  # type: ignore[list-item]

    return reward


def sandbox_fails() -> None:
    exec(compile("raise RuntimeError('zygote')", "pool.py", "exec"), {"__name__": "r1ray.sandbox.pool"})


OUTAGES: dict[str, Callable[[], object]] = {
    "refused in a library": refused,
    "refused in the reward's own line": connects_itself,
    "refused below urllib": asks_refused,
    "wrapped": wraps(refused),
    "wrapped without from": wraps_without_from(asks_refused),
    "in a group": group_of(refused),
    "timeout": times_out,
    "unknown host": lambda: socket.getaddrinfo("no-such-host.invalid", 80),
    "500": answers(500),
    "503": answers(503),
    "429": answers(429),
    "429 of another client": raises(ClientError(429)),
    "502 of another client, wrapped": wraps(raises(ClientError(502))),
    "full disk": raises(OSError(errno.ENOSPC, "No space left on device")),
    "the sandbox": sandbox_fails,
}
OWN: dict[str, Callable[[], object]] = {
    "name": lambda: lenght,  # type: ignore[name-defined]  # noqa: F821
    "type": lambda: "a" + 1,  # type: ignore[operator]
    "index": lambda: [][0],
    "library": lambda: json.loads("{"),
    "a missing file": lambda: open("no_such_file.json"),  # noqa: SIM115
    "a missing file, in a library": lambda: Path("no_such_file.json").read_text(),
    "a missing module": lambda: runpy.run_module("no_such_module"),
    "raised by hand: ConnectionError": raises(ConnectionError("server is down")),
    "raised by hand: TimeoutError": raises(TimeoutError("too slow")),
    "called as the infrastructure": raises(type("SandboxUnavailable", (RuntimeError,), {})("no")),
    "called as Ray's": raises(type("RayError", (Exception,), {})("no")),
    "401": answers(401),
    "404": answers(404),
    "400 of another client": raises(ClientError(400)),
    "exit": lambda: exit(3),
    "exit with what looks like a status": raises(SystemExit(503)),
    "recursion": lambda: deep(),
    "assert": raises(AssertionError()),
    "memory": raises(MemoryError()),
}


def deep() -> int:
    return deep() + 1


@pytest.mark.parametrize("what", OUTAGES)
def test_infrastructure_is_known_by_where_the_exception_comes_from(what: str) -> None:
    assert is_outage(caught(OUTAGES[what]))


@pytest.mark.parametrize("what", OWN)
def test_everything_else_is_the_plugins_own(what: str) -> None:
    error = caught(OWN[what])
    assert not is_outage(error)
    assert "test_plugin_errors.py" in place_of(error)
    assert plugin_errors.traceback_of(error)


def test_the_place_is_the_users_innermost_line_not_the_librarys() -> None:
    error = caught(OWN["library"])
    assert place_of(error) == f"{__file__}:{OWN['library'].__code__.co_firstlineno} in <lambda>"
    assert message_of(error).startswith("JSONDecodeError: Expecting property name")


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Rude(), "Rude: (its text cannot be shown)"),
        (AssertionError(), "AssertionError"),
        (ValueError("a\nb\n  c"), "ValueError: a b c"),
    ],
)
def test_a_message_is_one_line(error: BaseException, text: str) -> None:
    assert message_of(error) == text


def test_a_message_and_a_traceback_have_an_end() -> None:
    error = caught(raises(ValueError("x" * 1_000_000)))
    assert len(message_of(error)) <= 500 and len(plugin_errors.traceback_of(error)) < 9000


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_outage(first)


def test_a_failing_plugin_is_shown_at_once_and_raised_with_a_remedy() -> None:
    said: list[str] = []
    expected = pytest.raises(PluginFailed, match=r"weights of mine failed: NameError: .*lenght.*resume=auto")
    with expected as info, failing_as_plugin("weights of mine", say=said.append):
        OWN["name"]()
    assert "Traceback" in said[0] and "lenght" in said[0]
    assert users_traceback(info.value) is None, "not a second time"


def test_an_error_of_the_users_own_file_is_shown_also_from_a_worker() -> None:
    assert "lenght" in (users_traceback(caught(OWN["name"])) or "")
    remote = RuntimeError("policy-0 failed in 'update'")
    remote.__cause__ = cause = RuntimeError()
    cause.traceback_str = 'ray::update()\n  File "/users/my_algorithms.py", line 3, in loss\nNameError: x'  # type: ignore[attr-defined]
    assert "my_algorithms.py" in (users_traceback(remote) or "")
    cause.traceback_str = f'ray::update()\n  File "{plugin_errors.OURS}loop.py", line 3, in f\nValueError: x'  # type: ignore[attr-defined]
    assert users_traceback(remote) is None
