"""Real Ray nodes (`ray start`) on this machine: for what needs a cluster to submit to, or nodes to lose."""

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
    raise TimeoutError(f"no {what} within {seconds:.0f} s")


def runs(node: psutil.Popen, name: str) -> bool:
    """Whether a worker is on this node; Ray names its process after its class."""
    return any(name in " ".join(child.cmdline()) for child in node.children(recursive=True))
