"""r1ray as a Ray job on clusters of real `ray start` processes on this machine: with a token, without, stopped, a lost node."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import Cluster, kill, runs, wait_for
from real_run import REPO, json_lines

pytestmark = pytest.mark.integration
# One worker of each role and nothing that takes long: tested is the way to and from the cluster.
SMALL = [
    *("scale=smoke", "log.wandb=disabled", "eval.before_training=false", "algo.kl_coef=0", "checkpoint.every_steps=0"),
    *("rollout.num_workers=1", "trainer.num_workers=1", "reward.num_workers=1"),
]
OWN_REWARD = '''
import os
from pathlib import Path

from r1ray.reward.base import ComponentScore, per_completion


@per_completion
def there(problem, text):
    """1 where the working directory and the environment of the job have arrived."""
    return ComponentScore(value=float(os.environ.get("SENT") == "along" and Path("own_rewards.py").exists()))
'''

CHECK_FOLDER = """
import sys
from pathlib import Path

import ray

from r1ray.actors.shared_folder import check_shared

ray.init(log_to_driver=False)
nodes = [node["NodeID"] for node in ray.nodes()]
assert len(nodes) == 3
try:
    check_shared(Path(sys.argv[1]), nodes, 60)
except ValueError as error:
    sys.exit(str(error))
assert not list(Path(sys.argv[1]).iterdir()), "nothing stays behind"
"""


def rows_of(run: Path) -> list[dict[str, Any]]:
    return json_lines(run / "stages/rl/metrics.jsonl")


def said(cwd: Path) -> str:
    return (cwd / "output").read_text()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    ours = Cluster(RAY_JOB_STOP_WAIT_TIME_S="60")
    yield ours
    ours.end()


def test_job_with_a_token_finishes_with_its_folder_and_environment(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "own_rewards.py").write_text(OWN_REWARD)
    run = tmp_path / "shared"
    own = ["reward.components.there.name=own_rewards:there", "reward.components.there.weight=0.1"]
    process = cluster.submit(
        *("--address", cluster.address, "--env", "SENT=along"),
        *("--", *SMALL, "steps=2", f"run_dir={run}", *own),
        cwd=tmp_path,
    )
    assert process.wait(300) == 0, said(tmp_path)
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["reward/there/mean"] == 1 for row in rows)
    # Its output has arrived.
    assert "step" in said(tmp_path) and "report.html" in said(tmp_path)


def test_stopped_job_saves_and_the_same_command_resumes_it(cluster: Cluster, tmp_path: Path) -> None:
    """With plain `ray job submit` from a checkout, as in the README: r1ray is imported from the working directory."""
    run, name = tmp_path / "shared", "stopped-by-a-test"
    command = ["python", "-m", "r1ray.main", *SMALL, f"run_dir={run}", "algo.prompts_per_step=16"]
    submitted = ["submit", "--working-dir", str(REPO)]
    process = cluster.job(*submitted, "--submission-id", name, "--", *command, "steps=400", cwd=tmp_path)
    wait_for("step", lambda: len(rows_of(run)) >= 2 or process.poll() is not None, seconds=300)
    assert process.poll() is None, said(tmp_path)
    assert cluster.job("stop", name, cwd=tmp_path).wait(90) == 0
    process.wait(30)
    steps = len(rows_of(run))
    assert json_lines(run / "events.jsonl")[-1]["kind"] == "run_stopped", said(tmp_path)
    assert "run the same command with resume=auto" in said(tmp_path)
    again = cluster.job(*submitted, "--", *command, f"steps={steps + 1}", "resume=auto", cwd=tmp_path)
    assert again.wait(300) == 0, said(tmp_path)
    assert [row["step"] for row in rows_of(run)] == list(range(1, steps + 2))


def test_job_whose_results_would_be_lost_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    process = cluster.job("submit", "--working-dir", ".", "--", "python", "-m", "r1ray.main", "name=x", cwd=tmp_path)
    assert process.wait(60) == 1, said(tmp_path)
    assert "run_dir=/SHARED/FOLDER" in said(tmp_path) and "exit code 2" in said(tmp_path)


def test_job_without_a_token_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    arguments = ["--address", cluster.address, "--", "scale=smoke", f"run_dir={tmp_path}/x"]
    missing = cluster.submit(*arguments, cwd=tmp_path, RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))
    assert missing.wait(60) == 1 and "ray get-auth-token --generate" in said(tmp_path)
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("6" * 64)
    assert cluster.submit(*arguments, cwd=tmp_path, RAY_AUTH_TOKEN_PATH=str(wrong)).wait(60) == 1
    assert "refuses this token" in said(tmp_path)


def test_cluster_without_a_token_is_refused(tmp_path: Path) -> None:
    open_one = Cluster(RAY_AUTH_MODE="disabled")
    try:
        arguments = ["--address", open_one.address, "--", "scale=smoke", f"run_dir={tmp_path}/x"]
        assert open_one.submit(*arguments, cwd=tmp_path).wait(60) == 1
        assert "accepts jobs without a token" in said(tmp_path) and "RAY_AUTH_MODE=token" in said(tmp_path)
    finally:
        open_one.end()


@pytest.fixture
def three_nodes() -> Iterator[Cluster]:
    """The head for the driver and the trainer, two nodes for engines; a dead node is noticed sooner than by default."""
    ours = Cluster(RAY_health_check_period_ms="1000", head=["--num-cpus=1", "--labels=pool=head"])
    try:
        for _ in range(2):
            ours.start(f"--address={ours.gcs}", "--num-cpus=1", "--labels=pool=work")
        yield ours
    finally:
        ours.end()


def test_lost_node_is_survived_and_run_dir_is_checked_on_all_nodes(three_nodes: Cluster, tmp_path: Path) -> None:
    (tmp_path / "check_folder.py").write_text(CHECK_FOLDER)
    (tmp_path / "mine").mkdir()
    for folder, code in ((tmp_path / "mine", 0), (Path("/proc/self/cwd/mine"), 1)):
        check = [sys.executable, "check_folder.py", str(folder)]
        done = three_nodes.run(*check, cwd=tmp_path, RAY_ADDRESS=three_nodes.gcs, PYTHONPATH=str(REPO))
        assert done.wait(90) == code, said(tmp_path)
    assert said(tmp_path).count("has no such folder") == 2 and "run_dir=/SHARED/FOLDER" in said(tmp_path)

    run, steps = tmp_path / "shared", 6
    labels = ["cluster.labels.policy={pool: head}", "cluster.labels.rollout={pool: work}"]
    process = three_nodes.submit(
        *("--address", three_nodes.address, "--working-dir", str(REPO), "--"),
        *(*SMALL, *labels, "rollout.num_workers=2", "reward.num_workers=2", f"steps={steps}", f"run_dir={run}"),
        cwd=tmp_path,
    )
    wait_for("step", lambda: len(rows_of(run)) >= 1 or process.poll() is not None, seconds=300)
    assert process.poll() is None, said(tmp_path)
    kill(next(node for node in three_nodes.nodes[1:] if runs(node, "RolloutWorker")))
    assert process.wait(400) == 0, said(tmp_path)
    assert [row["step"] for row in rows_of(run)] == list(range(1, steps + 1))
    assert all(row["updates_skipped"] == 0 and row["staleness/max"] == 0 for row in rows_of(run))
    replaced = [event["worker"] for event in json_lines(run / "events.jsonl") if event["kind"] == "worker_restarted"]
    assert any(name.startswith("rollout") for name in replaced)
