"""The command line: Hydra composes, `r1ray.check` judges, and a person reads every mistake in one form, without a traceback.

Hydra's own refusal of unknown keys is bypassed: `key=value` is handed on as `++key=value`, and the check, which knows the schema,
says what was probably meant. So `+` is never needed, and one typo does not hide the next.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from r1ray.check import CheckedRun, ConfigError, Mistake, load
from r1ray.check.overrides import OVERRIDE, explain, unprefixed, with_prefix
from r1ray.check.own_recipes import names_taken, own_recipes
from r1ray.check.summary import describe
from r1ray.config.files import conf_dir, groups_in

PRINTING = {"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--version", "--shell-completion", "-sc"}
"""Flags with which Hydra prints something and nothing runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One composed configuration; a multirun has several."""

    cfg: DictConfig
    overrides: list[str]
    choices: dict[str, str]
    """{group: the option that Hydra chose}; of an optional group also where there is no such file."""
    folders: list[Path]
    """Where Hydra looked for them: conf/, and a folder of the user's own."""


def run_cli(main: Callable[[CheckedRun], None]) -> int:
    """Compose from the command line, check, and call `main` once per job; returns the exit code.

    2 means mistakes, which were printed; nothing was started then: all jobs of a multirun are checked before the first one runs.
    What `main` raises is its own.
    """
    try:
        runs = check_command_line(sys.argv[1:])
    except ConfigError as error:
        if _wants_traceback():
            raise
        print(f"r1ray: {error}", file=sys.stderr)
        return 2
    for run in runs:
        if run.config.check:
            print(describe(run))
        else:
            main(run)
    return 0


def check_command_line(arguments: Sequence[str]) -> list[CheckedRun]:
    """Every job of a command line, checked; none when Hydra only printed something.

    Raises:
        ConfigError: with the mistakes of the overrides and of all jobs.
    """
    jobs, mistakes = _compose_jobs(arguments)
    runs: list[CheckedRun] = []
    notes: list[str] = []
    for job in jobs:
        try:
            runs.append(load(job.cfg, job.overrides, job.choices, job.folders))
        except ConfigError as error:
            mistakes += error.mistakes
            notes += error.notes
    if mistakes:
        raise ConfigError(mistakes, list(dict.fromkeys(notes)))
    return runs


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration that these overrides give, not yet checked: for notebooks, tools and tests.

    Raises:
        ConfigError: Hydra cannot compose it.
    """
    jobs, mistakes = _compose_jobs(overrides)
    if mistakes:
        raise ConfigError(mistakes)
    return jobs[0].cfg


def _compose_jobs(arguments: Sequence[str]) -> tuple[list[Job], list[Mistake]]:
    """Hydra stops at its first error: the guilty override is taken out and Hydra asked again, until it has no more to say."""
    groups = groups_in(conf_dir())
    # Overrides last: between flags, argparse would not take them.
    ordered = sorted(arguments, key=lambda argument: OVERRIDE.fullmatch(argument) is not None)
    left = [with_prefix(argument, groups) for argument in ordered]
    mistakes = [*names_taken(left), *own_recipes(left)]
    if mistakes:
        return [], mistakes
    while True:
        try:
            return _run_hydra(left), mistakes
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            if _wants_traceback():
                raise
            mistake, guilty = explain(error, left)
            mistakes.append(mistake)
            prints = any(argument.partition("=")[0] in PRINTING for argument in left)
            if guilty not in left or prints:
                return [], mistakes
            left.remove(guilty)


def _run_hydra(arguments: Sequence[str]) -> list[Job]:
    """Let Hydra do what the command line says; the jobs that it would run are collected instead."""
    jobs: list[Job] = []

    def collect(cfg: DictConfig) -> None:
        job = HydraConfig.get()
        if job.mode == RunMode.MULTIRUN:
            cfg.run_dir = f"{OmegaConf.to_container(cfg)['run_dir']}_{job.job.num}"  # type: ignore[index]
        # ${hydra:...} can be resolved only here; what leads nowhere is left to the check, which names it.
        with suppress(OmegaConfBaseException):
            OmegaConf.resolve(cfg)
        # Not resolved: an override may hold an interpolation, which means nothing in this list.
        overrides = OmegaConf.to_container(job.overrides.task)
        assert isinstance(overrides, list)
        choices = {str(group): str(option) for group, option in job.runtime.choices.items()}
        folders = [Path(source.path) for source in job.runtime.config_sources if source.schema == "file"]
        plain = [unprefixed(str(override)) for override in overrides]
        jobs.append(Job(cfg=cfg, overrides=plain, choices=choices, folders=folders))

    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(collect)
    with _as_hydra_wants_it(arguments):
        entry()
    return jobs


@contextmanager
def _as_hydra_wants_it(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv; and unless this variable is set it prints errors in its own way and exits with 1."""
    argv, variable = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [argv[0], *arguments], "1"
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR")
        if variable is not None:
            os.environ["HYDRA_FULL_ERROR"] = variable


def _wants_traceback() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"
