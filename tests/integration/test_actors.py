"""Placement and actor groups on a simulated three-node cluster: labels, scaling by override, failures that name the worker."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from ray.cluster_utils import Cluster

from r1ray.actors import placement
from r1ray.actors.spawn import spawn
from r1ray.actors.watchdog import Watchdog
from r1ray.config import ClusterConfig, Config
from r1ray.failures import PlacementError, WorkerDied, WorkerFailed, WorkerUnresponsive

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.integration
CONF = str(Path(__file__).parents[2] / "conf")


class Worker:
    def __init__(self, *, index: int, fault: str = "") -> None:
        if fault:
            raise ValueError(fault)
        self.index = index

    def ping(self) -> int:
        return self.index

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def visible_gpus(self) -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    def sleep(self, seconds: float) -> int:
        time.sleep(seconds)
        return self.index

    def fail(self) -> None:
        raise ValueError("the third number is missing")

    def die(self) -> None:
        os._exit(1)

    def say(self, text: str) -> None:
        print(text, flush=True)


def config(*overrides: str) -> Config:
    with initialize_config_dir(CONF, version_base="1.3"):
        return Config.model_validate(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Node ids by role label; the rollout and policy nodes claim GPUs that do not exist."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1,2,3"
    simulated = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "labels": {"r1ray.io/role": "reward"}})
    for role in ("rollout", "policy"):
        simulated.add_node(num_cpus=4, num_gpus=4, labels={"r1ray.io/role": role})
    ray.init(address=simulated.address, logging_level="ERROR", log_to_driver=False)
    yield {node["Labels"].get("r1ray.io/role", ""): node["NodeID"] for node in ray.nodes()}
    ray.shutdown()
    simulated.shutdown()
    del os.environ["CUDA_VISIBLE_DEVICES"]


LABELS = [f"+cluster.labels.{role}={{r1ray.io/role: {role}}}" for role in ("rollout", "reward", "policy")]
GPUS = ["device=cuda", "rollout.gpus_per_worker=1", "trainer.gpus_per_worker=1"]


def start(slots: dict[str, list[placement.Slot]], role: str, tmp_path: Path):
    return spawn(
        Worker,
        role=role,
        slots=slots[role],
        kwargs_of=lambda index: {"index": index},
        env_of=lambda index: {},
        log_dir=tmp_path,
    )


def test_overrides_set_labels_and_sizes_of_groups(cluster: dict[str, str], tmp_path: Path) -> None:
    cfg = config(
        *LABELS,
        *GPUS,
        "rollout.num_workers=2",
        "rollout.tensor_parallel_size=2",
        "trainer.num_workers=3",
        "reward.num_workers=3",
    )
    slots = placement.place(placement.needs_of(cfg, roles=("rollout", "policy", "reward")), timeout_s=20)
    groups = {role: start(slots, role, tmp_path) for role in slots}
    for role, group in groups.items():
        nodes = group.gather([handle.node.remote() for handle in group.handles], what="node", timeout_s=60)
        assert set(nodes) == {cluster[role]}
    assert {role: len(group) for role, group in groups.items()} == {"rollout": 2, "policy": 3, "reward": 3}
    alive = [actor for actor in ray._private.state.actors().values() if actor["State"] == "ALIVE"]
    assert len(alive) == 8
    # One placement group per engine, so that a lost engine can be placed again alone.
    assert (
        len({slot.group.id for slot in slots["rollout"]}) == 2 and len({slot.group.id for slot in slots["policy"]}) == 1
    )
    seen = groups["rollout"].gather(
        [h.visible_gpus.remote() for h in groups["rollout"].handles], what="gpus", timeout_s=30
    )
    assert sorted(len(gpus.split(",")) for gpus in seen) == [2, 2]
    unseen = groups["reward"].gather(
        [h.visible_gpus.remote() for h in groups["reward"].handles], what="gpus", timeout_s=30
    )
    assert unseen == ["", "", ""]
    for group in groups.values():
        group.shutdown()
    placement.release(slots)


@pytest.mark.parametrize("algo", ["grpo", "prime"])
def test_roles_that_share_a_gpu_are_placed_on_the_same_gpu(cluster: dict[str, str], tmp_path: Path, algo: str) -> None:
    """Even though there are two nodes of four GPUs: weights go through the memory of that GPU."""
    cfg = config("scale=one_gpu", f"algo={algo}")
    roles = ["rollout", "policy", "reference", *(["prm"] if algo == "prime" else [])]
    slots = placement.place(placement.needs_of(cfg, roles=[*roles, "reward"]), timeout_s=20)
    groups = {role: start(slots, role, tmp_path) for role in roles}
    seen = {
        (
            group.gather([group.handles[0].node.remote()], what="node", timeout_s=60)[0],
            group.gather([group.handles[0].visible_gpus.remote()], what="gpus", timeout_s=60)[0],
        )
        for group in groups.values()
    }
    assert len(seen) == 1 and all(len(gpus.split(",")) == 1 for _, gpus in seen), seen
    lost = groups["rollout"].restart(["rollout-0"], timeout_s=60)
    assert not lost
    again = groups["rollout"].gather([groups["rollout"].handles[0].visible_gpus.remote()], what="gpus", timeout_s=60)
    assert again == [gpus for _, gpus in seen]
    for group in groups.values():
        group.shutdown()
    placement.release(slots)


def test_hung_worker_ends_soon_after_it_is_killed(cluster: dict[str, str], tmp_path: Path) -> None:
    """On another node too, and without the 5 seconds that Ray would wait: other processes wait at its sockets."""
    slots = placement.place(placement.needs_of(config(*LABELS), roles=("policy",)), timeout_s=20)
    group, events = start(slots, "policy", tmp_path), []
    cfg = ClusterConfig.model_construct(heartbeat_s=0.3, watchdog_s=100)
    watch = Watchdog(
        {"policy": group}, cfg=cfg, event=lambda kind, **fields: events.append(fields), say=lambda text: None
    )
    status = group.gather([handle.heartbeat.remote() for handle in group.handles], what="beat", timeout_s=60)
    hung = psutil.Process(status[0]["pid"])
    with watch:
        time.sleep(1)
        hung.suspend()
        deadline = time.monotonic() + 60
        while not events and time.monotonic() < deadline:
            time.sleep(0.05)
        begin = time.monotonic()
        with pytest.raises(WorkerDied):
            group.gather([handle.node.remote() for handle in group.handles], what="answer", timeout_s=30)
        hung.wait(30)
    assert time.monotonic() - begin < 4
    assert "policy-0 has not answered" in events[0]["what"]
    group.shutdown()
    placement.release(slots)


def test_placement_that_cannot_fit_is_refused_with_an_override_that_fits(cluster: dict[str, str]) -> None:
    cfg = config(*LABELS, *GPUS, "trainer.num_workers=9")
    started = time.monotonic()
    with pytest.raises(PlacementError) as error:
        placement.place(placement.needs_of(cfg, roles=("rollout", "policy")), timeout_s=3)
    assert time.monotonic() - started < 10
    message = str(error.value)
    assert "policy: 9 x" in message and "1 GPU" in message
    assert "need 11 GPUs, the cluster has 8" in message and "This fits: trainer.num_workers=6" in message
    # No reservation is left over: what fits is placed at once.
    slots = placement.place(placement.needs_of(config(*GPUS), roles=("rollout",)), timeout_s=10)
    placement.release(slots)


def test_label_that_no_node_has_is_named(cluster: dict[str, str]) -> None:
    cfg = config("+cluster.labels.reward={zone: moon}")
    with pytest.raises(PlacementError, match=r"No node has the labels \{'zone': 'moon'\}"):
        placement.place(placement.needs_of(cfg, roles=("reward",)), timeout_s=2)


def test_unresponsive_failing_and_dead_workers_are_named_and_their_output_is_kept(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    slots = placement.place(placement.needs_of(config("reward.num_workers=2"), roles=("reward",)), timeout_s=20)
    group = start(slots, "reward", tmp_path)
    first, second = group.handles
    with pytest.raises(WorkerUnresponsive, match="reward-1 did not finish 'sleep' within 2 s"):
        group.gather([first.sleep.remote(0), second.sleep.remote(8)], what="sleep", timeout_s=2)
    with pytest.raises(WorkerFailed, match="reward-0 failed in 'fail': ValueError: the third number is missing"):
        group.gather([first.fail.remote(), second.sleep.remote(5)], what="fail", timeout_s=20)
    group.gather([first.say.remote("hello log")], what="say", timeout_s=20)
    assert "hello log" in (tmp_path / "reward-0.log").read_text()
    with pytest.raises(WorkerDied, match="reward-0 died during 'die'"):
        group.gather([first.die.remote(), second.sleep.remote(5)], what="die", timeout_s=30)
    group.shutdown()
    placement.release(slots)


def test_failing_constructor_is_reported_with_its_message(cluster: dict[str, str], tmp_path: Path) -> None:
    slots = placement.place(placement.needs_of(config("reward.num_workers=1"), roles=("reward",)), timeout_s=20)
    group = spawn(
        Worker,
        role="reward",
        slots=slots["reward"],
        kwargs_of=lambda index: {"index": index, "fault": "there is no such model"},
        env_of=lambda index: {},
        log_dir=tmp_path,
    )
    with pytest.raises(WorkerFailed) as error:
        group.gather([group.handles[0].node.remote()], what="start", timeout_s=60)
    assert str(error.value) == "reward-0 failed in 'start': ValueError: there is no such model"
    group.shutdown()
    placement.release(slots)


def test_workers_of_a_role_share_the_cores_of_a_node(cluster: dict[str, str]) -> None:
    cfg = config(*LABELS, "trainer.num_workers=2", "rollout.num_workers=1")
    slots = placement.place(placement.needs_of(cfg, roles=("policy", "rollout")), timeout_s=20)
    assert placement.threads_per_worker(slots["policy"], override=None) == [2, 2]
    assert placement.threads_per_worker(slots["rollout"], override=None) == [4]
    assert placement.threads_per_worker(slots["policy"], override=1) == [1, 1]
    placement.release(slots)
