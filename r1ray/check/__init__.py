"""The configuration check: `load` finds every mistake before anything starts. Called by `r1ray.cli`."""

from r1ray.check.load import CheckedRun, CheckedStage, load
from r1ray.mistakes import NOT_CHECKED, ConfigError, Mistake

__all__ = ["NOT_CHECKED", "CheckedRun", "CheckedStage", "ConfigError", "Mistake", "load"]
