"""Starts and ends the actors of a stage."""

import random
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from r1ray.actors import placement
from r1ray.actors.group import ActorGroup, gather
from r1ray.actors.judge import JudgeServer
from r1ray.actors.placement import Slot
from r1ray.actors.shared_folder import check_shared
from r1ray.actors.spawn import spawn
from r1ray.config import Config
from r1ray.model.files import folder_of
from r1ray.plugin import resolve
from r1ray.roles import TRAINERS
from r1ray.run.directory import RunDir
from r1ray.run.phases import announce, announce_ready, counted
from r1ray.run.stop import raise_if_stop_requested

WORKERS = {
    "rollout": "r1ray.actors.rollout:RolloutWorker",
    "judge": "r1ray.actors.judge:JudgeWorker",
    "policy": "r1ray.actors.trainer:TrainerWorker",
    "critic": "r1ray.actors.trainer:TrainerWorker",
    "prm": "r1ray.actors.trainer:TrainerWorker",
    "reference": "r1ray.actors.reference:ReferenceWorker",
    "reward": "r1ray.actors.reward:RewardWorker",
}
"""{role: its class}, in the order in which they start: engines take longest to import. Each class is imported just before its role
starts, so that the driver's own imports do not delay the engines."""

CONCURRENT_CALLS = 1000
"""Calls that may wait in one engine at the same time. They take no threads: the rollout worker is an async actor."""

PORTS = range(20_000, 32_768)
"""Ports for the rendezvous of ranks: above those of Ray's workers, below those that Linux gives to connections."""

SHARED_TIMEOUT_S = 60.0
Role = str
ENGINES = ("rollout", "judge")


def scoring_roles(cfg: Config) -> list[Role]:
    """The roles that compute scores."""
    return ["reward", *(["judge"] if cfg.judge.path is not None else [])]


@contextmanager
def actor_groups(
    cfg: Config,
    *,
    roles: Sequence[Role],
    model_path: str,
    reference_path: str,
    trainer_kwargs: Mapping[Role, Mapping[str, Any]],
    run: RunDir,
) -> Iterator[dict[Role, ActorGroup]]:
    """Place and start the actors of `roles`; at the end kill their processes and release their slots.

    The actors are still starting when the body begins; it calls `wait_until_ready` before it uses them. Raises PlacementError when
    they do not fit.
    """
    needs = placement.needs_of(cfg, roles=roles)
    announce(f"starting {', '.join(counted(need.role, need.num) for need in needs)}")
    slots = placement.place(needs, timeout_s=cfg.cluster.placement_timeout_s)
    groups: dict[Role, ActorGroup] = {}
    paths = {"reference": reference_path, "judge": folder_of(cfg.judge.path or "")}
    paths |= {role: folder_of(path) for role, path in (("critic", cfg.critic.path), ("prm", cfg.prm.path)) if path}
    try:
        nodes = {slot.node_id for role in roles if role not in scoring_roles(cfg) for slot in slots[role]}
        check_shared(run.path, nodes, timeout_s=SHARED_TIMEOUT_S)
        for role in sorted(roles, key=list(WORKERS).index):
            groups[role] = _spawn(
                role,
                cfg,
                slots=slots[role],
                model_path=paths.get(role, model_path),
                trainer_kwargs=trainer_kwargs.get(role, {}),
                log_dir=run.path / "logs",
                judges=groups["judge"].handles if role == "reward" and "judge" in groups else (),
            )
        yield groups
    finally:
        for group in groups.values():
            group.shutdown()
        placement.release(slots)


def wait_until_ready(groups: Mapping[Role, ActorGroup], cfg: Config) -> None:
    """Announce each role once all of its workers are ready.

    Raises Stopped when the run is asked to stop, WorkerFailed with the name of a worker that fails, WorkerUnresponsive with the
    names of those that time out.
    """
    left = {role: len(group) for role, group in groups.items()}

    def arrived(name: str) -> None:
        role = name.rpartition("-")[0]
        left[role] -= 1
        if not left[role]:
            announce_ready(role, len(groups[role]), seconds=time.monotonic() - groups[role].spawned)

    calls = {group.name(i): h.ping.remote() for group in groups.values() for i, h in enumerate(group.handles)}
    timeout_s = max(cfg.rollout.start_timeout_s, cfg.trainer.start_timeout_s)
    gather(
        list(calls.values()),
        list(calls),
        what="start",
        timeout_s=timeout_s,
        key="rollout.start_timeout_s, trainer.start_timeout_s",
        arrived=arrived,
        check=raise_if_stop_requested,
    )


def _spawn(
    role: Role,
    cfg: Config,
    *,
    slots: Sequence[Slot],
    model_path: str,
    trainer_kwargs: Mapping[str, Any],
    log_dir: Path,
    judges: Sequence[ActorHandle],
) -> ActorGroup:
    threads = placement.threads_per_worker(slots, override=cfg.cluster.threads_per_worker if role != "reward" else 1)
    kwargs: dict[str, Any] = {"cfg": cfg}

    def rendezvous() -> None:
        if role in (*TRAINERS, "reference"):
            host, port = rendezvous_address(slots[0], timeout_s=cfg.trainer.start_timeout_s)
            kwargs.update(world_size=len(slots), master_addr=host, master_port=port)

    if role != "reward":
        kwargs["model_path"] = model_path
    elif judges:
        kwargs["judges"] = [JudgeServer(handle) for handle in judges]
    notes = (lambda i: {"note": f"{log_dir}/.reward-{i}.note"}) if role == "reward" else lambda _: {}
    if role in TRAINERS:
        kwargs |= {"role": role, "log_dir": str(log_dir), **trainer_kwargs}
    index_name = "rank" if role in (*TRAINERS, "reference") else "index"
    return spawn(
        resolve(WORKERS[role], {}, what="worker"),
        role=role,
        slots=slots,
        kwargs_of=lambda i: {index_name: i, **kwargs, **notes(i)},
        env_of=lambda i: {"OMP_NUM_THREADS": str(threads[i]), "TOKENIZERS_PARALLELISM": "false"},
        log_dir=log_dir,
        rendezvous=rendezvous,
        max_concurrency=CONCURRENT_CALLS if role in ENGINES else None,
        out_of_order=role == "reward",  # scores wait for completions, which arrive in any order
        restarted_by_ray=role == "judge",
    )


def rendezvous_address(slot: Slot, *, timeout_s: float) -> tuple[str, int]:
    """The address and a free port of the node of rank 0, which may change when a node is lost. The search runs on that node."""
    if placement.node_of(slot) == ray.get_runtime_context().get_node_id():
        return _host_and_free_port()
    task = ray.remote(num_cpus=slot.need.cpus)(_host_and_free_port).options(scheduling_strategy=slot.strategy)
    host, port = gather([task.remote()], [f"{slot.need.role}-0's node"], what="find a free port", timeout_s=timeout_s)[
        0
    ]
    return host, port


def _host_and_free_port() -> tuple[str, int]:
    """This node's address and a free port of PORTS. (A port that the kernel chooses is in the range of ordinary connections, and
    one of them could take it before rank 0 listens on it.)"""
    for port in random.SystemRandom().sample(PORTS, k=100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("", port))
            return ray.util.get_node_ip_address(), port
    raise RuntimeError(
        f"node {ray.util.get_node_ip_address()} has no free port for the trainer ranks: 100 ports between {PORTS.start} and "
        f"{PORTS.stop} are all in use"
    )
