"""Checks that the run directory is the same folder on every node: trainer ranks write their checkpoint shards into it.

A path may exist on every node and still be another folder, so the driver creates a file with a unique name and every node looks for
it. This runs before the actors start, which takes longer. Nodes that only score write no checkpoint and are not checked.
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
"""How long a network file system may cache the contents of a folder."""


def check_shared(run_dir: Path, node_ids: Iterable[str], timeout_s: float) -> None:
    """Check these nodes in parallel. The driver's own node is left out, so that a run on one machine costs nothing.

    Raises ValueError when a node sees another folder there or may not write to it; WorkerUnresponsive or WorkerFailed, with the
    name of the node, when it does not answer.
    """
    others = sorted(set(node_ids) - {ray.get_runtime_context().get_node_id()})
    if not others:
        return
    names = [_name(node_id) for node_id in others]
    mark = run_dir / f".shared-{uuid.uuid4().hex}"
    try:
        mark.touch()
        check = ray.remote(num_cpus=0)(_shared_folder_problem)
        strategies = [NodeAffinitySchedulingStrategy(node_id=node_id, soft=False) for node_id in others]
        calls = [check.options(scheduling_strategy=strategy).remote(str(mark)) for strategy in strategies]
        found = gather(calls, names, what=f"check {run_dir}", timeout_s=timeout_s)
    finally:
        mark.unlink(missing_ok=True)
    wrong = [f"{name} {complaint}" for name, complaint in zip(names, found, strict=True) if complaint]
    if wrong:
        raise ValueError(
            f"run_dir={run_dir} is not the same folder on all nodes: {'; '.join(wrong)}. Mount shared storage at the same path on "
            "every node and choose a folder on it: run_dir=/SHARED/FOLDER"
        )


def _shared_folder_problem(mark: str) -> str:
    """Runs on the node: what is wrong with the folder; empty when nothing is."""
    file = Path(mark)
    end = time.monotonic() + SEEN_WITHIN_S
    while file.parent.is_dir() and not file.exists() and time.monotonic() < end:
        time.sleep(0.2)
    if not file.parent.is_dir():
        return "has no such folder"
    if not file.exists():
        return "has another folder of that name"
    return "" if os.access(file.parent, os.W_OK) else "may not write to it"


def _name(node_id: str) -> str:
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    return f"node {addresses.get(node_id, 'of unknown address')} ({node_id[:8]})"
