"""The command that a run prints serves the exported model, and chat completions get the training prompt."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import free_port
from transformers import AutoModelForCausalLM

import r1ray.builtin
from r1ray.data.generators.countdown import question
from r1ray.model.load import save_lm
from r1ray.run.summary import serve_command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def answer(url: str, text: str, *, seed: int) -> dict[str, Any]:
    """The message that the model sends."""
    body = {"model": "served", "messages": [{"role": "user", "content": text}], "max_tokens": 120, "seed": seed}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["choices"][0]["message"]


def wait_until_served(url: str, process: "subprocess.Popen[Any]", log: Path) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-2000:])


def test_printed_command_serves_sensible_answers(tmp_path: Path) -> None:
    source = str(r1ray.builtin.path())
    lm = AutoModelForCausalLM.from_pretrained(source)
    weights = {name: weight.detach() for name, weight in lm.named_parameters()}
    save_lm(weights, str(tmp_path / "hf"), lm=lm, source=source, template="r1_zero")
    port = free_port()
    log, url = tmp_path / "log", f"http://127.0.0.1:{port}"
    command = f"{serve_command(tmp_path / 'hf')} --host 127.0.0.1 --port {port} --served-model-name served"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, shell=True, cwd=tmp_path, env={**os.environ}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until_served(url, process, log)
        answers = [answer(url, question([3, 5, 8], 16), seed=seed) for seed in range(4)]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    for message in answers:
        assert message["reasoning"] and message["content"].strip().startswith("<answer>"), answers
        assert message["content"].endswith("</answer>"), answers
