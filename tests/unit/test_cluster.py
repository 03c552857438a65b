"""What the driver checks of a cluster before it uses it."""

import ctypes
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray._private.utils

from r1ray.actors import cluster, shared_folder


@pytest.mark.parametrize("status", [200, 401, 403, 500])
def test_a_dashboard_that_others_reach_must_require_a_token(
    status: int, dashboard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.status = status
    url = f"127.0.0.1:{dashboard.server_port}"
    cluster.refuse_open_dashboard(url)  # on loopback
    monkeypatch.setattr(cluster, "_loopback", lambda host: False)
    if status == 200:
        with pytest.raises(ValueError, match=r"without a token(.|\n)*RAY_AUTH_MODE=token"):
            cluster.refuse_open_dashboard(url)
    else:
        cluster.refuse_open_dashboard(url)


def test_no_dashboard_and_one_that_does_not_answer_are_accepted(
    dashboard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_loopback", lambda host: False)
    cluster.refuse_open_dashboard("")
    cluster.refuse_open_dashboard(None)
    dashboard.status = 200
    url = f"127.0.0.1:{dashboard.server_port}"
    with pytest.raises(ValueError, match="without a token"):
        cluster.refuse_open_dashboard(url)
    dashboard.shutdown()
    dashboard.server_close()
    cluster.refuse_open_dashboard(url)


def test_loopback_addresses_are_recognised() -> None:
    assert cluster._loopback("127.0.0.1") and cluster._loopback("localhost")
    assert not cluster._loopback("0.0.0.0") and not cluster._loopback("10.1.2.3")


@pytest.mark.parametrize(
    ("env", "warned"),
    [({}, False), ({cluster.SUBMITTED: "{}"}, True), ({cluster.SUBMITTED: "{}", cluster.STOP_WAIT: "100"}, False)],
)
def test_a_job_that_could_not_save_on_stop_warns(
    env: dict[str, str], warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (cluster.SUBMITTED, cluster.STOP_WAIT):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    cluster.warn_of_short_stop()
    assert (f"{cluster.STOP_WAIT}=100" in capsys.readouterr().err) == warned


def test_a_node_reports_what_is_wrong_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_folder, "SEEN_WITHIN_S", 0.3)
    mark = tmp_path / "mark"
    assert shared_folder._shared_folder_problem(str(tmp_path / "not_mounted" / "mark")) == "has no such folder"
    assert shared_folder._shared_folder_problem(str(mark)) == "has another folder of that name"
    threading.Timer(0.1, mark.touch).start()
    assert shared_folder._shared_folder_problem(str(mark)) == "", "a network file system may be slow"
    monkeypatch.setattr(shared_folder.os, "access", lambda path, mode: False)  # root may write everywhere
    assert shared_folder._shared_folder_problem(str(mark)) == "may not write to it"


def test_a_ray_that_does_not_start_in_time_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    timeout, did = Exception("The current node timed out during startup. This could happen because"), []
    outcomes: list[Any] = [timeout, timeout, "context"]

    def init(**options: Any) -> Any:
        did.append(f"init {options['address']}")
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: did.append("shutdown"))
    assert cluster.init_ray({"address": "local"}) == "context"
    assert did == ["init local", "shutdown", "init local", "shutdown", "init local"]
    outcomes[:] = [timeout] * 9
    with pytest.raises(Exception, match="timed out"):
        cluster.init_ray({"address": "local"})
    outcomes[:] = [ConnectionError("no such cluster"), "context"]
    with pytest.raises(ConnectionError):
        cluster.init_ray({"address": "10.0.0.1:6379"})


def test_sigterm_while_ray_starts_is_left_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets a handler of its own at two points of ray.init; it would end the process with 15, or 1."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))

    def init(**options: Any) -> Any:
        def ends(number: int, frame: Any) -> None:
            raise SystemExit(number)

        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(2):
            ray._private.utils.set_sigterm_handler(ends)
            os.kill(os.getpid(), signal.SIGTERM)
        ctypes.CDLL(None).signal(signal.SIGTERM, 1)  # below Python, as Ray's C++ part: here it ignores the signal
        signal.alarm(100)
        return SimpleNamespace(dashboard_url=None, address_info={"gcs_address": "local"})

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "refuse_dead_address", lambda address: None)
    try:
        with cluster.connected(SimpleNamespace(address="10.0.0.1:6379", num_cpus=None)):  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGTERM)
        assert got == [signal.SIGTERM] * 4
        assert signal.alarm(0) == 0, "it would abort the run while it saves"
        ray._private.utils.set_sigterm_handler(signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "afterwards it is Ray's own again"
    finally:
        signal.signal(signal.SIGTERM, before)
