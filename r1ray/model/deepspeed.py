"""The only file that imports DeepSpeed: several micro-batches per update, sharded state, gathered weights.

r1ray needs from it the gradient of a plain sum over ranks and micro-batches (the weights in the loss contain every denominator),
one gradient norm over all of it, and a step that all ranks take or skip together.
"""

import json
import logging
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from numpy._core.multiarray import _reconstruct
from torch import Tensor

from r1ray.config import LoraConfig, TrainerConfig
from r1ray.model.forward import Policy, RowTensors
from r1ray.model.lora import merged_weights
from r1ray.model.reserved import reserved_deepspeed_keys

_TAG = "deepspeed"
_LAYOUT = "layout.json"
SAFE_CLASSES: list[Any] = [
    *(LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address),  # in DeepSpeed's optimizer state
    *(_reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))),  # in NumPy's random state
]
"""Classes whose objects are plain data; `load_tensors` makes no others."""


def init_distributed(*, device: str, timeout_s: float) -> None:
    """Join the process group described by the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT): nccl, or gloo on CPU."""
    deepspeed.logger.setLevel(logging.WARNING)
    # DeepSpeed's shared-memory all-reduce needs a compiler at run time and leaves 64 MB in /dev/shm for every killed process.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        "gloo" if device == "cpu" else "nccl", timeout=timedelta(seconds=timeout_s), verbose=False
    )


def deepspeed_config(cfg: TrainerConfig, *, device: str) -> dict[str, Any]:
    """DeepSpeed's configuration: `trainer.deepspeed`, overridden by r1ray's keys. Raises ValueError for reserved keys."""
    taken = reserved_deepspeed_keys(cfg.deepspeed)
    if taken:
        raise ValueError(
            f"trainer.deepspeed sets {', '.join(taken)}, which r1ray sets from other keys (see conf/trainer): remove it"
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
        # Micro-batches are summed: in bfloat16 small gradients would be lost.
        ours["data_types"] = {"grad_accum_dtype": "fp32"}
    if cfg.cpu_offload:
        ours["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": device == "cuda"}
    user = {"steps_per_print": 2**31, **cfg.deepspeed}
    return {**user, **ours, "zero_optimization": {**user.get("zero_optimization", {}), **ours["zero_optimization"]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    grad_norm: float
    """Global, before clipping; nan or inf when the gradient was."""
    skipped: bool


class TrainEngine:
    """The model of one rank with its optimizer: `backward` any number of times (equally often on all ranks), then `step`.

    Args:
        lora: the adapters of the policy, which are then the only weights that are trained and saved.
    """

    def __init__(self, policy: Policy, *, cfg: TrainerConfig, device: str, lora: LoraConfig | None = None) -> None:
        self._cfg, self._lora = cfg, lora
        self._base = None if lora is None else frozen_checksum(policy)
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
        """Add the gradient of this rank's share of the loss. `last` marks the last row of the update."""
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over ranks (ZeRO-3 has no other mode), but the shares of the loss have to be summed.
        self._engine.backward(loss * self._world_size, scale_wrt_gas=False)

    def step(self, *, lr: float, skip: bool) -> StepResult:
        """Clip and apply the accumulated gradient, or drop it if `skip` (the same on all ranks) or if its norm is not finite."""
        cfg = self._cfg
        for group in self._optimizer.param_groups:
            # All settings, not only lr: a loaded checkpoint contains those of the run that saved it.
            group.update(lr=lr, betas=tuple(cfg.betas), eps=cfg.adam_eps, weight_decay=cfg.weight_decay)
        norm = self._norm() if self._cfg.zero_stage == 0 else None
        self._optimizer.skip = skip or (norm is not None and not math.isfinite(norm))
        self._engine.step()
        if norm is None:
            norm = float(self._engine.get_global_grad_norm())
        # ZeRO itself drops an update whose norm is not finite, on all ranks, because the norm is global.
        return StepResult(grad_norm=norm, skipped=self._optimizer.skip or not math.isfinite(norm))

    def _norm(self) -> float:
        """The gradient norm without ZeRO: every rank has the whole reduced gradient, and DeepSpeed reports no norm."""
        grads = [p.grad for p in self._policy.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(grads))

    def gathered(self, p: torch.nn.Parameter) -> Tensor:
        """One weight unsharded, as `weights` yields it."""
        if self._cfg.zero_stage < 3:
            return p.detach()
        with deepspeed.zero.GatheredParameters([p]):
            return p.detach().clone() if dist.get_rank() == 0 else p.new_empty(0)

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, dtype, unsharded shape) of every weight, with the names of transformers and without a tied lm_head."""
        return [
            (w.name, str(w.base.dtype).removeprefix("torch."), tuple(getattr(w.base, "ds_shape", w.base.shape)))
            for w in merged_weights(self._policy.lm)
        ]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight unsharded, in the order of `weight_metadata`. With ZeRO-3 all ranks must exhaust the iterator; rank 0 gets
        the tensors, the others empty ones. Otherwise every rank gets views of its weights, except that only rank 0 gets merged
        adapters.
        """
        for weight in merged_weights(self._policy.lm):
            if self._cfg.zero_stage < 3:
                # Merging takes time, and only rank 0 needs the merged weights.
                needed = weight.adapter is None or dist.get_rank() == 0
                yield weight.name, weight.merged() if needed else weight.base.new_empty(0)
                continue
            with deepspeed.zero.GatheredParameters(weight.parts):
                # Yielding inside would keep the weight gathered while the caller uses it.
                whole = weight.merged().clone() if dist.get_rank() == 0 else weight.base.new_empty(0)
            yield weight.name, whole

    def save(self, path: str, *, state: Mapping[str, Any]) -> None:
        """Save the sharded trained weights and optimizer state of all ranks, the random states of this rank, and `state`."""
        adapted = self._lora is not None
        self._engine.save_checkpoint(path, tag=_TAG, client_state=dict(state), exclude_frozen_parameters=adapted)
        torch.save(_rng_states(), Path(path) / f"rng_{dist.get_rank()}.pt")
        if dist.get_rank() == 0:
            (Path(path) / _LAYOUT).write_text(json.dumps(self._layout()))
        dist.barrier()

    def load(self, path: str) -> dict[str, Any]:
        """Restore what `save` wrote; returns its `state`. Raises ValueError when it does not fit this engine."""
        layout = Path(path) / _LAYOUT
        saved = json.loads(layout.read_text()) if layout.exists() else None
        if saved != self._layout():
            raise ValueError(
                f"{path} holds trainer state of {saved}, this run has {self._layout()}: use the same values, or resume=never"
            )
        # Not strict with adapters: the frozen weights were not saved, and this engine has loaded them from the model folder.
        self._engine.checkpoint_engine.load = load_tensors
        _, state = self._engine.load_checkpoint(path, tag=_TAG, load_module_strict=self._lora is None)
        _set_rng_states(load_tensors(Path(path) / f"rng_{dist.get_rank()}.pt"))
        return state

    def _layout(self) -> dict[str, Any]:
        """The keys of `trainer` on which the shards depend; with adapters also `model.lora` and the frozen model."""
        layout = {"num_workers": self._world_size, "zero_stage": self._cfg.zero_stage, "precision": self._cfg.precision}
        return layout if self._lora is None else {**layout, "lora": self._lora.model_dump(), "base": self._base}


def load_tensors(path: str | Path, map_location: Any = None) -> Any:
    """What torch.save wrote: tensors, plain values and SAFE_CLASSES. DeepSpeed's own loader would run any code that a file names.

    Raises ValueError for a file with anything else in it.
    """
    try:
        with torch.serialization.safe_globals(SAFE_CLASSES):
            return torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|[Uu]nsupported global:?|class) ([\w.]+)", str(error))
        what = f"names {found[1]}, which" if found else "holds something that"
        raise ValueError(
            f"{path} {what} is no part of a trainer's state, and was not loaded: it would run code of whoever wrote the file. Take "
            "the files from where this run saved them, or choose name=ANOTHER for a new run"
        ) from error


def frozen_checksum(policy: Policy) -> int:
    """A checksum of the frozen weights: only adapters are saved, and they belong to the model with which they were trained."""
    total = 0
    for p in policy.parameters():
        if not p.requires_grad:
            bits = p.detach().view(torch.int16 if p.element_size() == 2 else torch.int32)
            total = (31 * total + int(bits.sum(dtype=torch.int64))) % 2**53
    return total


def sharded_for_inference(policy: Policy, *, precision: str) -> Any:
    """The frozen policy with ZeRO-3: its weights are sharded over the ranks and gathered layer by layer. Call it like a Policy."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": {"stage": 3},
        "steps_per_print": 2**31,
    }
    _partition(policy, config)
    return deepspeed.initialize(model=policy, config=config)[0]


class _SkippableAdamW(torch.optim.AdamW):
    """An AdamW whose step can be skipped while DeepSpeed clears gradients and gathers weights as usual."""

    skip = False

    def step(self, closure: Any = None) -> Any:
        return None if self.skip else super().step(closure)


def _partition(policy: Policy, config: dict[str, Any]) -> None:
    """With ZeRO-3, shard the weights parameter by parameter, so that a device never holds the whole model."""
    if config["zero_optimization"]["stage"] == 3:
        accelerator = get_accelerator()
        assert accelerator is not None
        deepspeed.zero.Init(module=policy, config_dict_or_path=config)
        # DeepSpeed does not move a module whose parameters are sharded already, and so leaves out its buffers.
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
