"""The driver's connection to Ray: the job's own cluster, a named one, or a local one that lives as long as the run."""

import http.client
import ipaddress
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray

from r1ray.check.directory import SUBMITTED
from r1ray.config import ClusterConfig

STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
START_ATTEMPTS = 3


def starts_ray(cfg: ClusterConfig) -> bool:
    """Whether a local Ray is started, so that this machine is all of the cluster."""
    return cfg.address is None and not {"RAY_ADDRESS", SUBMITTED} & set(os.environ)


@contextmanager
def connected(cfg: ClusterConfig) -> Iterator[None]:
    """Connect; on leaving end what was started here.

    No runtime_env is given to ray.init: inside `ray job submit` the job has one already, and the same key in both is an error.
    What workers print goes to the run's log files, so nothing of it is sent to this console.

    Raises ValueError when the cluster takes jobs from anybody who reaches it.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cfg.address is not None:
        options["address"] = cfg.address
    elif starts_ray(cfg):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's workers start niced: next to anything else on the machine a collective would wait for its slowest rank.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Workers started in advance would not have our actors' environment: they would only take time from those that do.
        os.environ.setdefault("RAY_enable_worker_prestart", "0")
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        # Every call would be reported to a dashboard that is not there: a tenth of what Ray takes of a small machine.
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        # Nobody starts a head again that is gone: a minute of waiting for it, and two of its agents, would be for nothing.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
        # "local": without it ray.init would join whatever Ray somebody else has started on this machine.
        options |= {"address": "local", "include_dashboard": False, "num_cpus": cfg.num_cpus}
    # A call on a worker that has died is made again; Ray would print the error of the first one when it is forgotten.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # CPU actors get an empty CUDA_VISIBLE_DEVICES from us; Ray's notice about its coming default is noise then.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    asked_to_stop = signal.getsignal(signal.SIGTERM)
    context: Any = initialised(options)
    if callable(asked_to_stop) and signal.getsignal(signal.SIGTERM) is not asked_to_stop:
        signal.signal(signal.SIGTERM, asked_to_stop)  # ray.init has put its own there, which ends the process at once
    try:
        refuse_open_dashboard(context.dashboard_url)
        warn_of_short_stop()
        yield
    finally:
        ray.shutdown()


def initialised(options: Mapping[str, Any]) -> Any:
    """What ray.init returns. Ray gives its own processes 30 seconds to start, and on a busy machine that may not do at first."""
    me = psutil.Process()
    for _ in range(START_ATTEMPTS - 1):
        before = set(me.children(recursive=True))
        try:
            return ray.init(**options)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            for process in set(me.children(recursive=True)) - before:  # Ray forgets those of a start that has failed
                with suppress(psutil.NoSuchProcess):
                    process.kill()
    return ray.init(**options)


def refuse_open_dashboard(url: str | None) -> None:
    """Raise ValueError when others reach the dashboard (host:port) and need no token: it executes whatever it is sent.

    Asked, not read from RAY_AUTH_MODE: that is this process's, and the dashboard's may be another. One on loopback is left to the
    people of its machine.
    """
    if not url or _loopback(url.rpartition(":")[0].strip("[]")):
        return
    # A proxy's refusal would pass for the dashboard's.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{url}/api/jobs/", timeout=10):
            pass
    except (OSError, http.client.HTTPException):  # 401, or not to be reached from here
        return
    raise ValueError(
        f"Ray's dashboard at {url} takes jobs without a token, so whoever reaches it runs code on this cluster. Stop this Ray and "
        "start every node's with RAY_AUTH_MODE=token and the same token file (`ray get-auth-token --generate` makes one), or at "
        "least the head with --dashboard-host 127.0.0.1"
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def warn_of_short_stop() -> None:
    """Say it at the start when `ray job stop` would kill this driver before it can save; the head's environment is the job's."""
    if SUBMITTED in os.environ and STOP_WAIT not in os.environ:
        print(
            f"r1ray: `ray job stop` would give this job 3 seconds, too few to save: it would go on from its last checkpoint. Start "
            f'the head with {STOP_WAIT}=100, or submit with --runtime-env-json \'{{"env_vars": {{"{STOP_WAIT}": "100"}}}}\' '
            "(launch/submit.py does)",
            file=sys.stderr,
        )
