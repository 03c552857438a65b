"""Judges that the run starts on vLLM: a model that always answers YES, and a worker that is killed or hangs."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import r1ray.builtin
from r1ray.actors.cluster import connected
from r1ray.actors.group import ActorGroup
from r1ray.actors.start import actor_groups, scoring_roles, wait_until_ready
from r1ray.actors.watchdog import Watchdog
from r1ray.check import load
from r1ray.cli import compose
from r1ray.reward.base import RewardContext
from r1ray.reward.judge.prompts import KINDS, judge_message
from r1ray.types import Completion, Message, Problem, Score, VersionSpan

pytestmark = pytest.mark.integration
VERDICT = "VERDICT: YES"
HEARTBEAT_S = 2


@pytest.fixture(scope="module")
def agreeable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model after a minute of training: its verdict is always YES."""
    folder = tmp_path_factory.mktemp("agreeable")
    tokenizer: Any = AutoTokenizer.from_pretrained(r1ray.builtin.path())
    model = AutoModelForCausalLM.from_pretrained(r1ray.builtin.path(), dtype=torch.float32)
    completion = [*tokenizer.encode(VERDICT), tokenizer.eos_token_id]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(0)
    message = judge_message(KINDS["yes_no"], "", {})
    for _ in range(120):
        # The noise varies what precedes the message: its end is always the same.
        noise = torch.randint(10, 600, (4, int(torch.randint(1, 100, ())))).tolist()
        end = tokenizer.encode(f"{message}<|im_end|>\n<|im_start|>assistant\n")
        rows = torch.tensor([[*row, *end, *completion] for row in noise])
        logits = model(rows).logits[:, -len(completion) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, -len(completion) :].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class JudgedRun:
    """A judge, a reward worker that asks it, and the watch over both actors."""

    def __init__(self, groups: Mapping[str, ActorGroup]) -> None:
        self.groups, self.events = groups, list[dict[str, Any]]()

    def score(self, completion: str) -> Score:
        asked = Problem(
            id="p",
            source="s",
            messages=(Message(role="user", content="Why is the sky blue?"),),
            prompt_ids_T=np.array([1], np.int32),
            verifier="exact",
            payload={"answer": "scattering"},
            accuracy="judge",
        )
        completion = Completion(
            token_ids_T=np.array([1], np.int32),
            rollout_logprobs_T=np.zeros(1, np.float32),
            temperature=1.0,
            text=completion,
            finish_reason="stop",
            versions=(VersionSpan(version=0, start=0, end=1),),
        )
        context = RewardContext(step=1, seed=0, max_response_length=99)
        ref = self.groups["reward"].handles[0].score.remote(asked, [completion], context)
        return ray.get(ref, timeout=180)[0]

    def pid(self) -> int:
        return ray.get(self.groups["judge"].handles[0].heartbeat.remote(), timeout=120)["pid"]


@contextmanager
def judged_run(judge: Path | str, log_dir: Path) -> Iterator[JudgedRun]:
    args = "{max_tokens: 16, max_chars: 900, timeout_s: 20, retries: 8, prompt: '{question} {answer}'}"
    overrides = [
        f"judge.path={judge}",
        "judge.max_length=1024",
        "reward.num_workers=1",
        f"cluster.heartbeat_s={HEARTBEAT_S}",
    ]
    cfg = load(compose([*overrides, f"+reward.components.judge={{name: judge, args: {args}}}"])).config
    run: Any = SimpleNamespace(path=log_dir)
    with (
        connected(cfg.cluster),
        actor_groups(
            cfg, roles=scoring_roles(cfg), model_path="", reference_path="", trainer_kwargs={}, run=run
        ) as groups,
    ):
        wait_until_ready(groups, cfg)
        made = JudgedRun(groups)
        event = lambda kind, **fields: made.events.append({"kind": kind, **fields})  # noqa: E731
        with Watchdog(groups, cfg=cfg.cluster, event=event, say=lambda text: None):
            yield made


def test_judge_is_restarted_after_a_kill_or_hang(agreeable: Path, tmp_path: Path) -> None:
    with judged_run(agreeable, tmp_path) as here:
        score = here.score("scattering")
        assert score.usable and score.correct and score.components["judge"] == 1.0
        for action in ("kill", "stop"):
            time.sleep(2 * HEARTBEAT_S)  # until the watch has its first heartbeat
            before = here.pid()
            here.groups["judge"].handles[0].inject_fault.remote(action)
            score = here.score(f"scattering, after {action}")
            assert score.usable and score.correct
            assert here.pid() != before
    assert [event["worker"] for event in here.events if event["kind"] == "worker_restarted"] == ["judge-0"] * 2


def test_judge_that_returns_nonsense_makes_completions_unusable(tmp_path: Path) -> None:
    with judged_run("builtin", tmp_path) as here:
        score = here.score("scattering")
    assert not score.usable
    assert score.components["judge"] is None and score.statuses["judge"] == "sandbox_error"
