"""Checks a configuration whose values are set on top of composed defaults, without the second that Hydra takes to compose."""

from collections.abc import Sequence

from algo_samples import algo_option
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from r1ray.check import CheckedRun, load


def check_values(base: DictConfig, overrides: Sequence[str]) -> CheckedRun:
    """`base` with these plain values; config groups are not selected again."""
    cfg = base.copy()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=True)
    return load(cfg)


def with_algorithm(base: DictConfig, option: str) -> DictConfig:
    """`base` with `algo=option` and the sizes of a laptop, which are applied after algo."""
    cfg = base.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.algo = OmegaConf.merge(cfg.algo, algo_option(option), {"group_size": 8, "prompts_per_step": 64})
    return cfg
