"""Rollout engines by name, one file each. To add an engine: a file, a line in ENGINES and a test.

An engine is imported when it is built: vLLM takes seconds to import, and only rollout workers need it.
"""

from typing import TYPE_CHECKING

from r1ray.config import Config
from r1ray.plugin import resolve

if TYPE_CHECKING:
    from r1ray.engine.base import RolloutEngine

ENGINES = {"vllm": "r1ray.engine.vllm:VllmEngine"}


def make(cfg: Config, *, model_path: str) -> "RolloutEngine":
    """The engine that `cfg.rollout.engine` names: a key of ENGINES, or `package.module:Class` with the same `from_config`.

    Raises ValueError when there is no such name or module, or when the model or rollout.engine_args are refused.
    """
    name = cfg.rollout.engine
    return resolve(ENGINES.get(name, name), ENGINES, what="rollout.engine").from_config(model_path, cfg=cfg)
