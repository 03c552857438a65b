"""Programs run by a remote service: requests, meaning of responses, and failures that never become a reward of 0."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from reward_samples import problem

from r1ray.config import SandboxConfig
from r1ray.reward.code import problem_tests
from r1ray.sandbox import current
from r1ray.sandbox.base import Limits, Program, SandboxUnavailable, Status
from r1ray.sandbox.remote import RemoteSandbox, result_of

Answer = Callable[[dict[str, Any]], Any]


class Service:
    """Runs what it receives, as SandboxFusion does, unless a test sets another response."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append(request)
                answer = service.answers.pop(0) if service.answers else run(request)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(500 if answer == b"" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


def run(request: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", request["code"]], input=request["stdin"], capture_output=True, text=True, timeout=30
    )
    return answered(return_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def answered(**ran: Any) -> dict[str, Any]:
    result = {"status": "Finished", "execution_time": 0.1, "return_code": 0, "stdout": "", "stderr": "", **ran}
    status = "Success" if result["return_code"] == 0 else "Failed"
    return {"status": status, "message": "", "compile_result": None, "run_result": result}


@pytest.fixture
def service() -> Iterator[Service]:
    started = Service()
    yield started
    started.server.shutdown()


def test_programs_and_functions_are_run(service: Service) -> None:
    sandbox = RemoteSandbox(service.url + "/", wait_s=0)
    limits = Limits(cpu_s=2, wall_s=5, memory_bytes=256 << 20)
    result = sandbox.run(Program(code=b"print(input()[::-1])", stdin=b"abc\n", limits=limits))
    assert (result.status, result.stdout) == ("ok", b"cba\n")
    assert service.asked[-1] == {
        "code": "print(input()[::-1])",
        "stdin": "abc\n",
        "language": "python",
        "run_timeout": 5,
        "compile_timeout": 90.0,
        "memory_limit_MB": 256,
    }
    code = b'class Solution:\n    def add(self, a, b):\n        print("no")\n        return {"sum": a + b}'
    result = sandbox.run(Program(code=code, stdin=b"[1, 2]\n[3, 4]\n", function="add"))
    assert (result.status, result.stdout) == ("ok", b'{"sum": 3}\n{"sum": 7}\n')
    assert sandbox.run(Program(code=b"1 / 0")).status == "runtime_error"


BUILD = {"status": "Finished", "return_code": 1, "stdout": "", "stderr": "error: no"}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (answered(), "ok"),
        (answered(return_code=1), "runtime_error"),
        (answered(return_code=137), "memory"),
        (answered(return_code=-9), "memory"),
        (answered(status="TimeLimitExceeded", return_code=None), "timeout"),
        (answered(status="Error", return_code=None), "sandbox_error"),
        (answered(stdout="x" * 11), "output_limit"),
        ({"status": "Failed", "compile_result": BUILD, "run_result": None}, "compile_error"),
        (
            {"status": "Failed", "compile_result": {**BUILD, "status": "TimeLimitExceeded"}, "run_result": None},
            "timeout",
        ),
        (answered(stdout="\ud800"), "ok"),
        ({"status": "SandboxError", "message": "no", "compile_result": None, "run_result": None}, "sandbox_error"),
        ({"status": "Success"}, "sandbox_error"),
    ],
)
def test_meaning_of_a_response(answer: dict[str, Any], status: Status) -> None:
    assert result_of(answer, Limits(output_bytes=10)).status == status


def test_failing_service_is_retried(service: Service) -> None:
    sandbox = RemoteSandbox(service.url, wait_s=0)
    sandbox_error = {"status": "SandboxError", "message": "busy", "compile_result": None, "run_result": None}
    service.answers = [b"", b"no JSON", sandbox_error]
    assert sandbox.run(Program(code=b"print(1)")).stdout == b"1\n"
    for broken in (b"", b"[]", sandbox_error):
        service.answers = [broken] * 4
        assert sandbox.run(Program(code=b"print(1)")).status == "sandbox_error"
    service.server.shutdown()
    service.server.server_close()
    assert sandbox.run(Program(code=b"print(1)")).status == "sandbox_error"


def test_service_that_fails_its_self_test_is_refused(service: Service) -> None:
    service.answers = [answered(stdout="3\n"), answered(stdout="")]  # the service returns no results of functions
    with pytest.raises(SandboxUnavailable, match=r"sandbox\.url=.* a self-test ended with ok"):
        RemoteSandbox(service.url, wait_s=0)
    with pytest.raises(SandboxUnavailable, match=r"sandbox_error ConnectError.*remedy"):
        RemoteSandbox("http://127.0.0.1:9", wait_s=0)


def test_configured_service_is_the_sandbox_of_the_process(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_remotes", [])
    monkeypatch.setattr(current, "_allowed", [])
    current.allow_programs(SandboxConfig(url=service.url, min_tier="T1", python="/nowhere", packages=[]), ())
    assert current.sandbox().run(Program(code=b"print(7)")).stdout == b"7\n"
    assert current.num_runs() == len(service.asked)


def test_endless_response_is_cut_off(service: Service) -> None:
    sandbox = RemoteSandbox(service.url, wait_s=0)
    service.answers = [answered(stdout="x" * (32 << 20))]
    limits = Limits(output_bytes=1 << 20)
    assert sandbox.run(Program(code=b"print(1)", limits=limits)).status == "output_limit"


def test_service_without_a_compiler_is_refused_for_cpp_programs(service: Service) -> None:
    assert RemoteSandbox(service.url, wait_s=0)  # the service runs everything as Python
    with pytest.raises(SandboxUnavailable, match="a self-test ended with runtime_error"):
        RemoteSandbox(service.url, {"cpp"}, wait_s=0)


def test_checker_with_expected_outputs_is_never_sent_to_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    local, remote = object(), object()
    monkeypatch.setattr(problem_tests, "local_sandbox", lambda: local)
    monkeypatch.setattr(problem_tests, "sandbox", lambda: remote)
    seen: list[object] = []
    monkeypatch.setattr(problem_tests, "Checker", lambda code, sandbox, **_: seen.append(sandbox))
    monkeypatch.setattr(
        problem_tests, "unpacked", lambda tests, sandbox: seen.append(sandbox) or [{"input": "1", "output": "2"}]
    )
    problem_tests.ProblemTests(
        problem(payload={"tests": {"packed": "", "public": [], "fn_name": None}, "checker": "print(1)"})
    )
    assert seen == [local, local]
