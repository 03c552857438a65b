"""DeepSpeed, and the only file that imports it: several micro-batches into one update, sharded state, whole weights back out.

What r1ray asks of it: the gradient of a plain sum over ranks and micro-batches (the weights in the loss hold every denominator),
one norm over all of it, and a step that all ranks take or leave together.
"""

import json
import logging
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from r1ray.config import LoraConfig, TrainerConfig
from r1ray.model.forward import Policy, RowTensors
from r1ray.model.lora import served_weights
from r1ray.model.reserved import reserved_deepspeed_keys

_TAG = "deepspeed"
_LAYOUT = "layout.json"


def init_distributed(*, device: str, timeout_s: float) -> None:
    """Join the process group that the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) describes: nccl or gloo."""
    deepspeed.logger.setLevel(logging.WARNING)
    # DeepSpeed's shared-memory all-reduce wants a compiler at run time and leaves 64 MB in /dev/shm for every killed process.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        "gloo" if device == "cpu" else "nccl", timeout=timedelta(seconds=timeout_s), verbose=False
    )


def deepspeed_config(cfg: TrainerConfig, *, device: str) -> dict[str, Any]:
    """DeepSpeed's own configuration from ours, with `trainer.deepspeed` laid under it. Raises ValueError for reserved keys."""
    taken = reserved_deepspeed_keys(cfg.deepspeed)
    if taken:
        raise ValueError(
            f"trainer.deepspeed sets {', '.join(taken)}, which r1ray sets itself: remove it, see conf/trainer"
        )
    bf16 = cfg.precision == "bf16"
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": cfg.grad_clip,
        "bf16": {"enabled": bf16},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": cfg.zero_stage},
    }
    if bf16:
        # Micro-batches are summed: in bfloat16 the small ones would be lost.
        ours["data_types"] = {"grad_accum_dtype": "fp32"}
    if cfg.cpu_offload:
        ours["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": device == "cuda"}
    theirs = {"steps_per_print": 2**31, **cfg.deepspeed}
    return {**theirs, **ours, "zero_optimization": {**theirs.get("zero_optimization", {}), **ours["zero_optimization"]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    grad_norm: float
    """Global, before clipping; nan or inf when the gradient was."""
    skipped: bool


class TrainEngine:
    """One rank's policy with its optimiser. `backward` any number of times (equally often on all ranks), then `step`.

    `lora` says which adapters the policy has: they alone are then trained and saved.
    """

    def __init__(self, policy: Policy, *, cfg: TrainerConfig, device: str, lora: LoraConfig | None = None) -> None:
        self._cfg, self._lora = cfg, lora
        self._base = None if lora is None else frozen_sum(policy)
        self._world_size = dist.get_world_size()
        config = deepspeed_config(cfg, device=device)
        if cfg.activation_checkpointing:
            policy.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy.train()
        _partition(policy, config)
        self._optimizer = _SkippableAdamW(
            [p for p in policy.parameters() if p.requires_grad],
            lr=cfg.lr,
            betas=cfg.betas,
            eps=cfg.adam_eps,
            weight_decay=cfg.weight_decay,
            fused=True,
        )
        self._policy = policy
        self._engine: Any = deepspeed.initialize(model=policy, optimizer=self._optimizer, config=config)[0]

    @property
    def device(self) -> torch.device:
        return self._engine.device

    def forward(self, row: RowTensors, *, entropy_grad: bool) -> tuple[Tensor, Tensor]:
        """As `Policy.forward`."""
        return self._engine(row, entropy_grad=entropy_grad)

    def outputs(self, row: RowTensors, *, autocast: bool | None = None) -> Tensor:
        with torch.no_grad():
            return self._engine(row, autocast=autocast)[0]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of a rank's share of the loss; `last` marks the update's last row."""
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over ranks (ZeRO-3 cannot be told to sum), the shares of the loss are to be summed.
        self._engine.backward(loss * self._world_size, scale_wrt_gas=False)

    def step(self, *, lr: float, skip: bool) -> StepResult:
        """Clip and apply what was accumulated, or drop it when `skip` (the same on all ranks) or when its norm is not finite."""
        cfg = self._cfg
        for group in self._optimizer.param_groups:
            # All of them: a loaded checkpoint brings the settings of the run that saved it.
            group.update(lr=lr, betas=tuple(cfg.betas), eps=cfg.adam_eps, weight_decay=cfg.weight_decay)
        norm = self._norm() if self._cfg.zero_stage == 0 else None
        self._optimizer.skip = skip or (norm is not None and not math.isfinite(norm))
        self._engine.step()
        if norm is None:
            norm = float(self._engine.get_global_grad_norm())
        # ZeRO drops an update whose norm is not finite by itself, on all ranks, for the norm is global.
        return StepResult(grad_norm=norm, skipped=self._optimizer.skip or not math.isfinite(norm))

    def _norm(self) -> float:
        """Without ZeRO every rank holds the whole gradient, already reduced, and DeepSpeed reports no norm."""
        grads = [p.grad for p in self._policy.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(grads))

    def gathered(self, p: torch.nn.Parameter) -> Tensor:
        """One weight whole, as `weights` yields them."""
        if self._cfg.zero_stage < 3:
            return p.detach()
        with deepspeed.zero.GatheredParameters([p]):
            return p.detach().clone() if dist.get_rank() == 0 else p.new_empty(0)

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, dtype, whole shape) of every weight, named as transformers names them, a tied lm_head left out."""
        return [
            (w.name, str(w.base.dtype).removeprefix("torch."), tuple(getattr(w.base, "ds_shape", w.base.shape)))
            for w in served_weights(self._policy.lm)
        ]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight whole, in the order of `weight_metadata`. With ZeRO-3 all ranks must walk it to the end, rank 0 gets the
        tensors and the others empty ones; otherwise every rank gets views of its own, and rank 0 what adapters are merged into."""
        for weight in served_weights(self._policy.lm):
            if self._cfg.zero_stage < 3:
                # Merging is work, and whoever asks for merged weights asks rank 0.
                mine = weight.adapter is None or dist.get_rank() == 0
                yield weight.name, weight.whole() if mine else weight.base.new_empty(0)
                continue
            with deepspeed.zero.GatheredParameters(weight.parts):
                # Yielding in here would keep the weight gathered for as long as the caller takes.
                whole = weight.whole().clone() if dist.get_rank() == 0 else weight.base.new_empty(0)
            yield weight.name, whole

    def save(self, path: str, *, state: Mapping[str, Any]) -> None:
        """Sharded weights (those that are trained) and optimiser state of all ranks, this rank's random states, and `state`."""
        adapted = self._lora is not None
        self._engine.save_checkpoint(path, tag=_TAG, client_state=dict(state), exclude_frozen_parameters=adapted)
        torch.save(_rng_states(), Path(path) / f"rng_{dist.get_rank()}.pt")
        if dist.get_rank() == 0:
            (Path(path) / _LAYOUT).write_text(json.dumps(self._layout()))
        dist.barrier()

    def load(self, path: str) -> dict[str, Any]:
        """Back to what `save` saw; returns its `state`. Raises ValueError when it cannot fit this engine."""
        layout = Path(path) / _LAYOUT
        saved = json.loads(layout.read_text()) if layout.exists() else None
        if saved != self._layout():
            raise ValueError(
                f"{path} holds trainer state of {saved}, this run has {self._layout()}: use the same, or resume=never"
            )
        # With adapters not strict: the frozen weights were not saved, this engine has them from the model's folder.
        _, state = self._engine.load_checkpoint(path, tag=_TAG, load_module_strict=self._lora is None)
        _set_rng_states(torch.load(Path(path) / f"rng_{dist.get_rank()}.pt", weights_only=False))
        return state

    def _layout(self) -> dict[str, Any]:
        """What optimiser shards depend on, as keys of `trainer`; where there are adapters `model.lora` and their model's."""
        layout = {"num_workers": self._world_size, "zero_stage": self._cfg.zero_stage, "precision": self._cfg.precision}
        return layout if self._lora is None else {**layout, "lora": self._lora.model_dump(), "base": self._base}


def frozen_sum(policy: Policy) -> int:
    """Tells one frozen model from another: adapters alone are saved, and belong to the model beside which they have learned."""
    total = 0
    for p in policy.parameters():
        if not p.requires_grad:
            bits = p.detach().view(torch.int16 if p.element_size() == 2 else torch.int32)
            total = (31 * total + int(bits.sum(dtype=torch.int64))) % 2**53
    return total


def sharded_for_inference(policy: Policy, *, precision: str) -> Any:
    """The frozen policy behind ZeRO-3: its weights are spread over the ranks and gathered layer by layer. Call it like a Policy."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": {"stage": 3},
        "steps_per_print": 2**31,
    }
    _partition(policy, config)
    return deepspeed.initialize(model=policy, config=config)[0]


class _SkippableAdamW(torch.optim.AdamW):
    """An AdamW whose step can be left out while everything around it (clearing gradients, gathering weights) runs as usual."""

    skip = False

    def step(self, closure: Any = None) -> Any:
        return None if self.skip else super().step(closure)


def _partition(policy: Policy, config: dict[str, Any]) -> None:
    """With ZeRO-3, spread the weights parameter by parameter: a device never has to hold the whole model, not even at the start."""
    if config["zero_optimization"]["stage"] == 3:
        accelerator = get_accelerator()
        assert accelerator is not None
        deepspeed.zero.Init(module=policy, config_dict_or_path=config)
        # DeepSpeed moves no module whose parameters are spread already, and so forgets its buffers.
        for buffer in policy.buffers():
            buffer.data = buffer.data.to(accelerator.current_device_name())


def _rng_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_rng_states(states: Mapping[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
