"""Helpers of the trainer tests: groups of scored completions, sections of a configuration, workers without Ray.

Everything here uses r1ray; the reference that it is compared with does not (test_trainer.py).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import yaml
from tiny_models import make_tokenizer, move_weights
from transformers import AutoModelForCausalLM, Qwen2Config

from r1ray.actors.trainer import TrainerWorker
from r1ray.algo.base import Objective
from r1ray.algo.grpo import Grpo
from r1ray.config import AlgoConfig, AuxiliaryTrainerConfig, CriticConfig, ReferenceConfig, TrainerConfig
from r1ray.roles import TrainerRole
from r1ray.types import Completion, Group, Problem, Score, VersionSpan

CONF = Path(__file__).parents[2] / "conf"
VOCAB, TEMPERATURE, EOS = 61, 0.6, 1
CLIP, BETA, EPS = 0.2, 0.05, 1e-4
MINIBATCHES = 4


@dataclass
class Response:
    """The data of one completion that the reference uses."""

    group: str
    prompt: list
    ids: list
    reward: float
    trained: bool = True
    """False: masked, its reward still counts in the baseline."""
    usable: bool = True


COMPLETIONS = [
    Response("a", [5], [EOS], 1.0),  # a prompt of one token and a completion of one token
    Response("a", [5], [7, 8, 9, 7, EOS], 0.0),
    Response("a", [5], [11, EOS], 0.5),
    Response("b", [5, 6, 7, 8, 9], list(range(10, 40)), 1.0),  # truncated: no EOS
    Response("b", [5, 6, 7, 8, 9], [20, 21, EOS], 0.0),
    Response("b", [5, 6, 7, 8, 9], list(range(40, 60)), 0.0, trained=False),  # truncated and masked
    Response("b", [5, 6, 7, 8, 9], [30, 31, 32, EOS], 1.0),
    Response("c", [9, 9, 12], [33, EOS], 0.2),
    Response("c", [9, 9, 12], [34] * 12 + [EOS], 0.9),
    Response("c", [9, 9, 12], [35, 36, EOS], 7.0, usable=False),
    Response("c", [9, 9, 12], [37, 38, 39, 40, 41, EOS], 0.4),
]


def make_models(folder: Path) -> Any:
    """A tied policy, one close to it as the reference (its KL is far from the clamp of k3), and an untied one."""
    for name in ("policy", "reference", "untied"):
        config = Qwen2Config(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.2,
            tie_word_embeddings=name != "untied",
            eos_token_id=EOS,
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        if name == "reference":
            move_weights(model, seed=1, scale=0.02)
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    return SimpleNamespace(**{name: str(folder / name) for name in ("policy", "reference", "untied")})


def config(*, critic=None, lora=None, **trainer):
    """The sections of a Config that trainers and reference read."""
    defaults = yaml.safe_load((CONF / "trainer/default.yaml").read_text())
    quiet = {"lr": 1e-3, "logprob_gap_limit": math.inf, "timeout_s": 60}
    reference = yaml.safe_load((CONF / "reference/default.yaml").read_text())
    critic_defaults = yaml.safe_load((CONF / "critic/default.yaml").read_text())
    return SimpleNamespace(
        critic=CriticConfig(**critic_defaults | {"lr": 1e-3} | (critic or {})),
        prm=AuxiliaryTrainerConfig(**yaml.safe_load((CONF / "prm/default.yaml").read_text())),
        trainer=TrainerConfig(**defaults | quiet | trainer),
        reference=ReferenceConfig(**reference | {"zero_stage": 3 if trainer.get("zero_stage") == 3 else 0}),
        model=SimpleNamespace(properties=None, lora=lora, template="r1_zero"),
        rollout=SimpleNamespace(sleep=False),
        device="cpu",
        seed=0,
    )


def grpo(**overrides):
    defaults = yaml.safe_load((CONF / "algo/grpo.yaml").read_text())
    ours = {"adv_eps": EPS, "clip_low": CLIP, "clip_high": CLIP, "kl_coef": BETA, "num_minibatches": MINIBATCHES}
    return Grpo(cfg=AlgoConfig(**defaults | ours | overrides), max_response_length=32)


def groups_of(completions, *, rollout_logprob=-1.0):
    out = []
    for name in dict.fromkeys(completion.group for completion in completions):
        members = [completion for completion in completions if completion.group == name]
        problem = Problem(
            id=name, source="s", messages=(), prompt_ids_T=np.int32(members[0].prompt), verifier="v", payload={}
        )
        sampled = tuple(
            Completion(
                token_ids_T=np.int32(completion.ids),
                rollout_logprobs_T=np.full(len(completion.ids), rollout_logprob, np.float32),
                temperature=TEMPERATURE,
                text="",
                finish_reason="stop" if completion.trained else "length",
                versions=(VersionSpan(version=0, start=0, end=len(completion.ids)),),
            )
            for completion in members
        )
        scores = tuple(
            Score(reward=r.reward, correct=None, components={}, statuses={}, usable=r.usable, seconds=0.0)
            for r in members
        )
        out.append(Group(problem=problem, completions=sampled, scores=scores))
    return out


class Together:
    """The worker of each rank as one group, as every rank sees it."""

    def __init__(self, worker, rank, world_size, max_tokens, ranks_per_row=1):
        self.ranks_per_row = ranks_per_row
        self.worker, self.rank, self.world_size, self.max_tokens = worker, rank, world_size, max_tokens

    def __len__(self):
        return self.world_size // self.ranks_per_row

    def rows(self, batch):
        """The rows of this rank."""
        return batch.rows[self.rank // self.ranks_per_row]

    def compute_logprobs_or_values(self, batch):
        out = [None] * self.world_size
        dist.all_gather_object(out, self.worker.compute_logprobs_or_values(self.rows(batch)))
        return out[:: self.ranks_per_row]


def make_trainer(
    rank: int, world_size: int, port: int, cfg: Any, path: str, algorithm: Objective, role: TrainerRole = "policy"
) -> TrainerWorker:
    return TrainerWorker(
        rank=rank,
        world_size=world_size,
        master_addr="127.0.0.1",
        master_port=port,
        cfg=cfg,
        model_path=path,
        objective=algorithm,
        role=role,
        total_updates=100,
    )


def weights_of(trainer):
    return {name: weight.float().numpy().copy() for name, weight in trainer._engine.weights()}


def capture_gradients(trainer):
    """Returns a dict that the next update fills with the full gradients that it uses; frozen parameters have none."""
    from deepspeed.utils import safe_get_full_grad

    grads, step = {}, trainer._engine.step

    def recording_step(**kwargs):
        for name, p in trainer._lm.named_parameters():
            if not p.requires_grad:
                continue
            grad = p.grad if trainer._cfg.zero_stage == 0 else safe_get_full_grad(p)
            grads[name] = grad.float().numpy().copy()
        return step(**kwargs)

    trainer._engine.step = recording_step
    return grads
