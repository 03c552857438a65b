"""r1ray as a Ray job, on clusters of real `ray start` processes on this machine: with a token, without, stopped, a node lost."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.integration
REPO = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# One of each role, and nothing that takes long: what is tested here is the way to and from the cluster.
SMALL = [
    *("scale=smoke", "log.wandb=disabled", "eval.before=false", "algo.kl_coef=0", "checkpoint.every_steps=0"),
    *("rollout.num_workers=1", "trainer.num_workers=1", "reward.num_workers=1"),
]
OWN_REWARD = '''
import os
from pathlib import Path

from r1ray.reward.base import PartScore, per_completion


@per_completion
def there(problem, text):
    """1 where the working directory and the environment of the job have arrived."""
    return PartScore(value=float(os.environ.get("SENT") == "along" and Path("own_rewards.py").exists()))
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


class Cluster:
    """Nodes of a Ray of our own, ended as processes: `ray stop` would end every Ray of the machine.

    Ports of its own, a dashboard on loopback, a folder with a short name (Ray puts sockets there).
    """

    def __init__(self, head: Sequence[str] = (), **env: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="r1ray-", dir="/tmp"))
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text("5" * 64)
        without_ray = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        self.env = without_ray | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_enable_worker_prestart": "0",
            "RAY_prestart_worker_first_driver": "0",
            **env,
        }
        gcs, port = free_port(), free_port()
        self.gcs = f"127.0.0.1:{gcs}"
        self.address = f"http://127.0.0.1:{port}"
        self.nodes: list[psutil.Popen] = []
        listening = [f"--port={gcs}", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"]
        listening += [f"--ray-client-server-port={free_port()}"]
        self.start("--head", *listening, *head)

    def start(self, *options: str) -> psutil.Popen:
        """One node; they are started one after another, for Ray gives each 30 seconds."""
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--include-log-monitor=false"]
        command += ["--object-store-memory=300000000"]
        # Jobs run through this port: with the default one, two nodes of a machine would be in each other's way.
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        # With a folder for all, one node would remove the job's files while another uses them.
        command += [f"--temp-dir={self.folder}/{len(self.nodes)}"]
        said = self.folder / f"node-{len(self.nodes)}"
        with said.open("w") as output:
            node = psutil.Popen([*command, *options], env=self.env, stdout=output, stderr=output, cwd=self.folder)
        self.nodes.append(node)
        wait_for("node", lambda: "Ray runtime started" in said.read_text() or node.poll() is not None, seconds=90)
        assert node.poll() is None, said.read_text()
        return node

    def run(self, *command: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
        """A command of a person who may use this cluster; its output is in `cwd`/output."""
        with (cwd / "output").open("a") as output:
            return subprocess.Popen(
                command, cwd=cwd, env=self.env | env, stdout=output, stderr=output, text=True, start_new_session=True
            )

    def job(self, verb: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        return self.run(str(BIN / "ray"), "job", verb, "--address", self.address, *arguments, cwd=cwd)

    def submit(self, *arguments: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
        return self.run(sys.executable, str(REPO / "launch/submit.py"), *arguments, cwd=cwd, **env)

    def end(self) -> None:
        """End every node, and see that nothing of them is left: no job, no actor, no helper of Ray's."""
        nodes = [node for node in self.nodes if node.is_running()]
        for node in reversed(nodes):
            node.send_signal(signal.SIGTERM)
        psutil.wait_procs(nodes, timeout=15)
        for process in self.processes():
            process.kill()
        psutil.wait_procs([*nodes, *self.processes()], timeout=15)
        assert not self.processes()
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Everything that was started on this cluster or by it, told by the environment it has inherited."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(self.folder):
                    found.append(process)
        return found


def kill(node: psutil.Popen) -> None:
    """As when a machine is gone: all of its processes at once."""
    for process in [*node.children(recursive=True), node]:
        process.kill()
    node.wait(30)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what: str, there: Callable[[], Any], *, seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := there():
            return found
        time.sleep(0.2)
    pytest.fail(f"no {what} within {seconds:.0f} s")


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def rows_of(run: Path) -> list[dict[str, Any]]:
    return lines_of(run / "stages/rl/metrics.jsonl")


def said(cwd: Path) -> str:
    return (cwd / "output").read_text()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    ours = Cluster(RAY_JOB_STOP_WAIT_TIME_S="60")
    yield ours
    ours.end()


def test_submitted_with_a_token_it_finishes_with_its_folder_and_environment(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "own_rewards.py").write_text(OWN_REWARD)
    run = tmp_path / "shared"
    own = ["reward.parts.there.name=own_rewards:there", "reward.parts.there.weight=0.1"]
    process = cluster.submit(
        *("--address", cluster.address, "--env", "SENT=along"),
        *("--", *SMALL, "steps=2", f"run_dir={run}", *own),
        cwd=tmp_path,
    )
    assert process.wait(300) == 0, said(tmp_path)
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["reward/there/mean"] == 1 for row in rows)
    # Its output has come through.
    assert "step" in said(tmp_path) and "report.html" in said(tmp_path)


def test_stopped_it_saves_and_the_same_command_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """By plain `ray job submit` from a checkout, as the README has it: r1ray comes out of the working directory."""
    run, name = tmp_path / "shared", "stopped-by-a-test"
    command = ["python", "-m", "r1ray.main", *SMALL, f"run_dir={run}", "algo.problems_per_step=16"]
    submitted = ["submit", "--working-dir", str(REPO)]
    process = cluster.job(*submitted, "--submission-id", name, "--", *command, "steps=400", cwd=tmp_path)
    wait_for("step", lambda: len(rows_of(run)) >= 2 or process.poll() is not None, seconds=300)
    assert process.poll() is None, said(tmp_path)
    assert cluster.job("stop", name, cwd=tmp_path).wait(90) == 0
    process.wait(30)
    steps = len(rows_of(run))
    assert lines_of(run / "events.jsonl")[-1]["kind"] == "stopped", said(tmp_path)
    assert "resume=auto goes on" in said(tmp_path)
    again = cluster.job(*submitted, "--", *command, f"steps={steps + 1}", "resume=auto", cwd=tmp_path)
    assert again.wait(300) == 0, said(tmp_path)
    assert [row["step"] for row in rows_of(run)] == list(range(1, steps + 2))


def test_a_job_whose_results_would_be_lost_never_starts(cluster: Cluster, tmp_path: Path) -> None:
    process = cluster.job("submit", "--working-dir", ".", "--", "python", "-m", "r1ray.main", "name=x", cwd=tmp_path)
    assert process.wait(60) == 1, said(tmp_path)
    assert "run_dir=/SHARED/FOLDER" in said(tmp_path) and "exit code 2" in said(tmp_path)


def test_without_a_token_nothing_is_sent(cluster: Cluster, tmp_path: Path) -> None:
    arguments = ["--address", cluster.address, "--", "scale=smoke", f"run_dir={tmp_path}/x"]
    missing = cluster.submit(*arguments, cwd=tmp_path, RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))
    assert missing.wait(60) == 1 and "ray get-auth-token --generate" in said(tmp_path)
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("6" * 64)
    assert cluster.submit(*arguments, cwd=tmp_path, RAY_AUTH_TOKEN_PATH=str(wrong)).wait(60) == 1
    assert "refuses this token" in said(tmp_path)


def test_a_cluster_that_wants_no_token_gets_no_job(tmp_path: Path) -> None:
    open_one = Cluster(RAY_AUTH_MODE="disabled")
    try:
        arguments = ["--address", open_one.address, "--", "scale=smoke", f"run_dir={tmp_path}/x"]
        assert open_one.submit(*arguments, cwd=tmp_path).wait(60) == 1
        assert "takes jobs without a token" in said(tmp_path) and "RAY_AUTH_MODE=token" in said(tmp_path)
    finally:
        open_one.end()


@pytest.fixture
def three_nodes() -> Iterator[Cluster]:
    """The head for the driver and the trainer, two nodes for engines; a dead one is noticed sooner than by default."""
    ours = Cluster(RAY_health_check_period_ms="1000", head=["--num-cpus=1", "--labels=pool=head"])
    try:
        for _ in range(2):
            ours.start(f"--address={ours.gcs}", "--num-cpus=1", "--labels=pool=work")
        yield ours
    finally:
        ours.end()


def test_a_lost_node_is_survived_and_the_folder_is_checked_on_all(three_nodes: Cluster, tmp_path: Path) -> None:
    (tmp_path / "check_folder.py").write_text(CHECK_FOLDER)
    (tmp_path / "mine").mkdir()
    for folder, code in ((tmp_path / "mine", 0), (Path("/proc/self/cwd/mine"), 1)):
        check = [sys.executable, "check_folder.py", str(folder)]
        done = three_nodes.run(*check, cwd=tmp_path, RAY_ADDRESS=three_nodes.gcs, PYTHONPATH=str(REPO))
        assert done.wait(90) == code, said(tmp_path)
    assert said(tmp_path).count("has no such folder") == 2 and "run_dir=/SHARED/FOLDER" in said(tmp_path)

    run, steps = tmp_path / "shared", 6
    labels = ["cluster.labels.trainer={pool: head}", "cluster.labels.rollout={pool: work}"]
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
    replaced = [event["worker"] for event in lines_of(run / "events.jsonl") if event["kind"] == "worker_restarted"]
    assert any(name.startswith("rollout") for name in replaced)


def runs(node: psutil.Popen, name: str) -> bool:
    """Whether a worker is on this node; Ray names its process after its class."""
    return any(name in " ".join(child.cmdline()) for child in node.children(recursive=True))
