"""A judge server on this machine whose responses a test defines."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Request"], Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    number: int
    """0 for the first request."""
    prompt: str
    body: dict[str, Any]
    key: str | None


@dataclass
class JudgeServer:
    """`answer` returns the text of the completion; or an int, a status; bytes, the whole content; a callable, which gets the
    handler.
    """

    answer: Answer
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0

    @property
    def prompts(self) -> list[str]:
        return [request.prompt for request in self.requests]


@contextmanager
def judge_server(answer: Answer | str, *, delay_s: float = 0.0) -> Iterator[JudgeServer]:
    server = JudgeServer(answer if callable(answer) else lambda request: answer)
    lock, here = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                prompt = body["messages"][-1]["content"]
                key = self.headers["Authorization"]
                request = Request(number=len(server.requests), prompt=prompt, body=body, key=key)
                server.requests.append(request)
                here[0] += 1
                server.most_at_once = max(server.most_at_once, here[0])
            time.sleep(delay_s)
            said = server.answer(request) if self.path == "/v1/chat/completions" else 404
            with lock:  # before the response: the client's next request may arrive at once
                here[0] -= 1
            if callable(said):
                said(self)
                return
            status, content = (said, b"{}") if isinstance(said, int) else (200, said)
            if isinstance(content, str):
                content = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """The client has disconnected."""

    http = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
