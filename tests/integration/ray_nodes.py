"""Real Ray nodes (`ray start`) on this machine, for tests that need a cluster to submit jobs to, or nodes to lose."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from real_run import REPO

BIN = Path(sys.executable).parent


class Cluster:
    """Nodes of a separate Ray, stopped by killing their processes: `ray stop` would stop every Ray on the machine.

    It has its own ports, a dashboard on loopback, and a folder with a short name (Ray creates sockets there).
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
        """Start one node. Nodes must be started one after another, because Ray gives each only 30 seconds."""
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--include-log-monitor=false"]
        command += ["--object-store-memory=300000000"]
        # Jobs run through this port: with the default port two nodes on one machine would conflict.
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        # With a shared folder one node would remove the job's files while another uses them.
        command += [f"--temp-dir={self.folder}/{len(self.nodes)}"]
        said = self.folder / f"node-{len(self.nodes)}"
        with said.open("w") as output:
            node = psutil.Popen([*command, *options], env=self.env, stdout=output, stderr=output, cwd=self.folder)
        self.nodes.append(node)
        wait_for("node", lambda: "Ray runtime started" in said.read_text() or node.poll() is not None, seconds=90)
        assert node.poll() is None, said.read_text()
        return node

    def run(self, *command: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
        """A command of a user who has access to this cluster; its output is in `cwd`/output."""
        with (cwd / "output").open("a") as output:
            return subprocess.Popen(
                command, cwd=cwd, env=self.env | env, stdout=output, stderr=output, text=True, start_new_session=True
            )

    def job(self, verb: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        return self.run(str(BIN / "ray"), "job", verb, "--address", self.address, *arguments, cwd=cwd)

    def submit(self, *arguments: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
        return self.run(sys.executable, str(REPO / "launch/submit.py"), *arguments, cwd=cwd, **env)

    def end(self) -> None:
        """End every node and check that nothing is left: no job, no actor, no helper process of Ray."""
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
        """All processes that were started on this cluster or by it, recognised by their inherited environment."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(self.folder):
                    found.append(process)
        return found


def kill(node: psutil.Popen) -> None:
    """Kill all processes of a node at once, as when a machine fails."""
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
    raise TimeoutError(f"no {what} within {seconds:.0f} s")


def runs(node: psutil.Popen, name: str) -> bool:
    """Whether a worker runs on this node; Ray names its process after its class."""
    return any(name in " ".join(child.cmdline()) for child in node.children(recursive=True))
