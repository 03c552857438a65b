"""The driver's connection to Ray: the job's own cluster, a named one, or a local one that lives as long as the run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from r1ray.config import ClusterConfig


@contextmanager
def connected(cfg: ClusterConfig) -> Iterator[None]:
    """Connect; on leaving end what was started here.

    No runtime_env is given to ray.init: inside `ray job submit` the job has one already, and the same key in both is an error.
    What workers print goes to the run's log files, so nothing of it is sent to this console.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cfg.address is not None:
        options["address"] = cfg.address
    elif not {"RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"} & set(os.environ):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's workers start niced: next to anything else on the machine a collective would wait for its slowest rank.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Workers started in advance would not have our actors' environment: they would only take time from those that do.
        os.environ.setdefault("RAY_enable_worker_prestart", "0")
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        # "local": without it ray.init would join whatever Ray somebody else has started on this machine.
        options |= {"address": "local", "include_dashboard": False, "num_cpus": cfg.num_cpus}
    # CPU actors get an empty CUDA_VISIBLE_DEVICES from us; Ray's notice about its coming default is noise then.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()
