"""The driver's connection to Ray: the cluster of a submitted job, one at an address, or a local one that ends with the run."""

import http.client
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import services, utils

from r1ray.config import ClusterConfig
from r1ray.run import stop
from r1ray.run.directory import SUBMITTED
from r1ray.run.lifeline import (
    Lifeline,
    Processes,
    cluster_loss,
    end_process,
    kill_groups,
    local_loss,
    refuse_dead_address,
)
from r1ray.run.phases import phase

STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
START_ATTEMPTS = 3
REAPER_DELAY_S = 5
"""Time for Ray's processes to end by themselves."""


def starts_ray(cfg: ClusterConfig) -> bool:
    """Whether the run starts a local Ray; the cluster is then this machine."""
    return cfg.address is None and not {"RAY_ADDRESS", SUBMITTED} & set(os.environ)


@contextmanager
def connected(cfg: ClusterConfig, *, event: Callable[..., object] = lambda kind, **fields: None) -> Iterator[None]:  # noqa: ARG005
    """Connect, and disconnect at the end; a local Ray is then shut down. When Ray is lost meanwhile, the process ends at once.

    ray.init gets no runtime_env: a submitted job has one already, and the same key in both is an error. The output of workers goes
    to the log files of the run, not to this console.

    Args:
        event: logs that Ray is lost (`RunDir.event`).

    Raises:
        ValueError: the cluster accepts jobs without authentication from other machines.
        ConnectionError: nothing listens at the cluster's address.
    """
    if (address := cfg.address or os.environ.get("RAY_ADDRESS")) is not None:
        refuse_dead_address(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cfg.address is not None:
        options["address"] = cfg.address
    elif starts_ray(cfg):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's workers run at a low priority by default: on a busy machine a collective would wait for its slowest rank.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Prestarted workers lack the environment of our actors, so no actor could use them, and starting them would take CPU time.
        os.environ.setdefault("RAY_enable_worker_prestart", "0")
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        # Every call would be reported to a dashboard that is not running: a tenth of Ray's load on a small machine.
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        # A local head never comes back once it has ended. By default the driver and two agents would wait a minute for it.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
        # "local": without it ray.init would join any other Ray on this machine.
        options |= {"address": "local", "include_dashboard": False, "num_cpus": cfg.num_cpus}
    # Calls on dead workers are repeated; Ray would print the error of the first attempt when its reference is dropped.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # CPU actors get an empty CUDA_VISIBLE_DEVICES from us, so Ray's warning about its future default does not apply.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    name = "starting Ray" if options.get("address") == "local" else "connecting to Ray"
    with phase(name), own_sessions() as started, own_handler():
        context: Any = init_ray(options)
    reaper = start_reaper(started) if started else None
    info = context.address_info
    lost = (
        local_loss(started, logs=Path(info["session_dir"]) / "logs") if started else cluster_loss(info["gcs_address"])
    )
    with Lifeline(lost, end=partial(end_without_ray, event=event, processes=started)):
        try:
            refuse_open_dashboard(context.dashboard_url)
            warn_of_short_stop()
            yield
        finally:
            ray.shutdown()  # without its GCS it would wait, and then abort the process
            kill_groups(started)  # workers and agents, which outlive the raylet for a moment
            if reaper is not None:
                reaper.kill()
                reaper.wait()


def end_without_ray(cause: str, *, event: Callable[..., object], processes: Processes) -> None:
    """End the run, whose calls would never return."""
    event("run_failed", error=cause)
    first = f"{stop.stop_reason()}, but the last step may not be saved: " if stop.stop_requested() else ""
    message = f"r1ray: {first}{cause}. Without it the run cannot go on; resume=auto continues from the last checkpoint"
    end_process(message, code=stop.EXIT_CODE if stop.stop_requested() else 1, processes=processes)


@contextmanager
def own_handler() -> Iterator[None]:
    """Ray leaves SIGTERM to the handler of this process, if it has one. Its own ends the process at once, also while Ray starts."""
    set_handler, handler = utils.set_sigterm_handler, signal.getsignal(signal.SIGTERM)
    if not callable(handler):
        yield
        return
    utils.set_sigterm_handler = lambda handler: None  # noqa: ARG005
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler
        # Ray's C++ part has installed one below Python's: it calls ours, and its alarm aborts the process 3 seconds later.
        signal.signal(signal.SIGTERM, handler)
        signal.alarm(0)


@contextmanager
def own_sessions() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Ray's processes that are started here get sessions of their own, and SIGTERM does not end them; gives the list of them.

    Ctrl-C and `timeout` signal the whole process group of the driver, systemd and batch systems every process. A local Ray would
    end before the checkpoint is saved. Ray has no option for this. Its workers and agents inherit the blocked signal.
    """
    popen, started = services.ConsolePopen, list["subprocess.Popen[bytes]"]()

    class OwnSession(popen):  # type: ignore[misc,valid-type]
        signalled = False
        """Whether this process has ended it, as ray.shutdown does."""

        def send_signal(self, sig: int) -> None:
            self.signalled = True
            super().send_signal(signal.SIGKILL if sig == signal.SIGTERM else sig)

    def start(*args: Any, **options: Any) -> "subprocess.Popen[bytes]":
        # Children inherit the mask, and it holds whatever handlers they install.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            started.append(OwnSession(*args, **options, start_new_session=True))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return started[-1]

    services.ConsolePopen = start  # type: ignore[assignment,misc]
    try:
        yield started
    finally:
        services.ConsolePopen = popen  # type: ignore[misc]


def start_reaper(processes: Iterable["subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
    """Start a process that kills the process groups of `processes` once this process is gone.

    Two of Ray's agents would outlive a driver that is killed.
    """
    groups = " ".join(f"-{process.pid}" for process in processes)
    script = f"trap '' TERM; read _; sleep {REAPER_DELAY_S}; kill -KILL {groups}"
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
    )


def init_ray(options: Mapping[str, Any]) -> Any:
    """Call ray.init, up to START_ATTEMPTS times: Ray gives its processes 30 seconds to start, too few on a busy machine."""
    driver = psutil.Process()
    for _ in range(START_ATTEMPTS - 1):
        before = set(driver.children(recursive=True))
        try:
            return ray.init(**options)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            for process in set(driver.children(recursive=True)) - before:  # Ray does not end those of a failed start
                with suppress(psutil.NoSuchProcess):
                    process.kill()
    return ray.init(**options)


def refuse_open_dashboard(url: str | None) -> None:
    """Raise ValueError when the dashboard (host:port) takes jobs from other machines without a token: a job can run any code.

    The dashboard is queried, because RAY_AUTH_MODE in this process may differ from the dashboard's. A dashboard on loopback is
    accepted.
    """
    if not url or _loopback(url.rpartition(":")[0].strip("[]")):
        return
    # Without proxies: an error of a proxy would look like the dashboard's refusal.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{url}/api/jobs/", timeout=10):
            pass
    except (OSError, http.client.HTTPException):  # 401, or unreachable from here
        return
    raise ValueError(
        f"Ray's dashboard at {url} takes jobs without a token: anyone who can reach it can run code on this cluster. Stop Ray and "
        "start it on every node with RAY_AUTH_MODE=token and the same token file (`ray get-auth-token --generate` makes one), or "
        "start the head with --dashboard-host 127.0.0.1"
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def warn_of_short_stop() -> None:
    """Warn when `ray job stop` would kill this driver before it can save a checkpoint. (A job inherits the environment variables of
    the head node, so this process sees the setting.)
    """
    if SUBMITTED in os.environ and STOP_WAIT not in os.environ:
        print(
            "r1ray: `ray job stop` gives this job 3 seconds, too few to save a checkpoint: it would resume from an older one. "
            f'Start the head with {STOP_WAIT}=100, or submit with --runtime-env-json \'{{"env_vars": {{"{STOP_WAIT}": "100"}}}}\' '
            "(launch/submit.py does)",
            file=sys.stderr,
        )
