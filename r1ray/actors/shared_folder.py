"""Whether the run directory is the same folder on every node: trainer ranks write their checkpoint shards into it from there.

A path that exists everywhere proves nothing, so the driver leaves a file with a name of its own there and every node is asked for
it. Asked before the actors start, which takes longer. Nodes that only score write no checkpoint and need not be asked.
"""

import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from r1ray.actors.group import gather

SEEN_WITHIN_S = 10.0
"""How old a network file system's idea of a folder may be."""


def check_shared(run_dir: Path, node_ids: Iterable[str], timeout_s: float) -> None:
    """Ask these nodes at once; this process's own is not asked, so that a run on one machine pays nothing.

    Raises ValueError when one of them sees another folder there, or may not write; WorkerUnresponsive or WorkerFailed, with the
    node's name, when it does not answer.
    """
    others = sorted(set(node_ids) - {ray.get_runtime_context().get_node_id()})
    if not others:
        return
    names = [_name(node_id) for node_id in others]
    mark = run_dir / f".shared-{uuid.uuid4().hex}"
    try:
        mark.touch()
        look = ray.remote(num_cpus=0)(_look)
        strategies = [NodeAffinitySchedulingStrategy(node_id=node_id, soft=False) for node_id in others]
        calls = [look.options(scheduling_strategy=strategy).remote(str(mark)) for strategy in strategies]
        found = gather(calls, names, what=f"look into {run_dir}", timeout_s=timeout_s)
    finally:
        mark.unlink(missing_ok=True)
    wrong = [f"{name} {complaint}" for name, complaint in zip(names, found, strict=True) if complaint]
    if wrong:
        raise ValueError(
            f"run_dir={run_dir} is not the same folder on all nodes: {'; '.join(wrong)}. Mount shared storage at the same place on "
            "every node and name a folder on it: run_dir=/SHARED/FOLDER"
        )


def _look(mark: str) -> str:
    """On the node: what is wrong with the folder; empty when nothing is."""
    file = Path(mark)
    end = time.monotonic() + SEEN_WITHIN_S
    while file.parent.is_dir() and not file.exists() and time.monotonic() < end:
        time.sleep(0.2)
    if not file.parent.is_dir():
        return "has no such folder"
    if not file.exists():
        return "has another folder of that name"
    return "" if os.access(file.parent, os.W_OK) else "may not write into it"


def _name(node_id: str) -> str:
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    return f"node {addresses.get(node_id, 'of unknown address')} ({node_id[:8]})"
