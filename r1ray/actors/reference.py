"""The frozen reference policy: log-probs for the KL term. Not started when the algorithm needs no reference.

Without ZeRO-3 each worker holds the whole model and works alone. With ZeRO-3 the model is sharded over all workers, which compute
together.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch

from r1ray.config import Config
from r1ray.model.distributed import join_ranks
from r1ray.model.forward import row_tensors
from r1ray.model.memory import frees_memory
from r1ray.types import Floats, Row


class ReferenceWorker:
    """One rank. With ZeRO-3, `compute_logprobs_or_values` and `load` are collectives."""

    def __init__(
        self, *, rank: int, world_size: int, master_addr: str, master_port: int, cfg: Config, model_path: str
    ) -> None:
        self._cfg = cfg
        self.shares_memory = cfg.rollout.sleep
        if cfg.reference.zero_stage == 3:
            join_ranks(
                rank=rank,
                world_size=world_size,
                master_addr=master_addr,
                master_port=master_port,
                device=cfg.device,
                timeout_s=cfg.trainer.timeout_s,
            )
        self._policy: Any = None
        self.load(model_path)

    def ping(self) -> int:
        """The process id, once the constructor has finished."""
        return os.getpid()

    @frees_memory
    def load(self, path: str) -> None:
        """Load the model of another folder: for a reference that follows the policy, and on resume."""
        # Not at the top: the driver imports this module before it starts the actors, and this import takes seconds.
        from r1ray.model.load import load_policy

        self._policy = None  # freed first, so that there are never two models in memory
        policy = load_policy(path, cfg=self._cfg).eval().requires_grad_(False)
        if self._cfg.reference.zero_stage == 3:
            from r1ray.model.deepspeed import sharded_for_inference

            self._policy = sharded_for_inference(policy, precision=self._cfg.trainer.precision)
        else:
            self._policy = policy.to(self._cfg.device)

    @frees_memory
    def compute_logprobs_or_values(self, rows: Sequence[Row]) -> list[Floats]:
        """Log-probs at their temperature of the tokens with mask 1, those of completions; 0 elsewhere."""
        device = torch.device(self._cfg.device)
        with torch.no_grad():
            return [self._policy(row_tensors(row, device=device))[0].cpu().numpy() for row in rows]
