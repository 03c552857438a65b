"""The command line: Hydra composes, `r1ray.check` checks, and every mistake is printed in one form, without a traceback.

Hydra's rejection of unknown keys is bypassed: `key=value` becomes `++key=value`, and the check, which knows the schema, suggests
the key that was probably meant. So `+` is never needed, and one typo does not hide the next.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra._internal.utils import _run_hydra as run_hydra  # what hydra.main calls with a parsed command line
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from r1ray.check import CheckedRun, ConfigError, Mistake, load
from r1ray.check.config_dir import config_dir_mistakes
from r1ray.check.load import plain_config
from r1ray.check.overrides import OVERRIDE, hydra_mistake, invalid_choice, with_prefix, without_prefix
from r1ray.config.files import conf_dir
from r1ray.mistakes import AT_START
from r1ray.plan import describe
from r1ray.preview import prompt_preview
from r1ray.sweep import run_each, suffixes


class Job(NamedTuple):
    """One composed configuration; a multirun has several."""

    cfg: DictConfig
    overrides: list[str]
    choices: dict[str, str]
    """{group: the option that Hydra selected}. In an optional group the option may have no file."""
    folders: list[Path]
    """The folders that Hydra searched for options: conf/, and the user's --config-dir."""


def run_cli(main: Callable[[CheckedRun], None]) -> int:
    """Compose from the command line, check, and call `main` once for each job; returns the exit code.

    2: there are mistakes, which were printed, and nothing was started: all jobs of a multirun are checked before the first one
    runs. Exceptions of `main` are not caught.
    """
    args = _parsed(sys.argv[1:])
    try:
        if args.cfg == "job" and not args.package:  # Hydra's print would lack the defaults of plug-ins' arguments
            args.cfg, args.resolve = None, False
            print(yaml.safe_dump_all(map(plain_config, _composed(args)), sort_keys=False, allow_unicode=True), end="")
            return 0
        runs = check_command_line(sys.argv[1:])
    except ConfigError as error:
        if _wants_traceback():
            raise
        print(f"r1ray: {error}", file=sys.stderr)
        return 2
    for run in runs:
        if run.config.check:
            print(describe(run), prompt_preview(run), sep="\n")

    def start(run: CheckedRun) -> None:
        print("".join(f"r1ray: {note}\n" for note in run.notes if note.startswith(AT_START)), end="")
        main(run)

    started = [run for run in runs if not run.config.check]
    if len(started) > 1:
        return run_each(started, start)
    for run in started:
        start(run)
    return 0


def check_command_line(arguments: Sequence[str]) -> list[CheckedRun]:
    """Every job of a command line, checked; none when Hydra only printed something.

    Raises:
        ConfigError: with the mistakes of the overrides and of all jobs.
    """
    jobs, mistakes = _compose_jobs(_parsed(arguments))
    runs: list[CheckedRun] = []
    notes: list[str] = []
    for job in jobs:
        try:
            runs.append(load(*job))
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
    return _composed(_parsed(overrides))[0]


def _composed(args: Namespace) -> list[DictConfig]:
    jobs, mistakes = _compose_jobs(args)
    if mistakes:
        raise ConfigError(mistakes)
    return [job.cfg for job in jobs]


def _parsed(arguments: Sequence[str]) -> Namespace:
    """Parse the flags with Hydra's parser. It accepts no overrides between flags, so overrides are moved to the end."""
    return get_args_parser().parse_args(
        sorted(arguments, key=lambda argument: OVERRIDE.fullmatch(argument) is not None)
    )


def _compose_jobs(args: Namespace) -> tuple[list[Job], list[Mistake]]:
    """Hydra stops at its first error: the override at fault is removed and Hydra called again, until it reports none."""
    left = [with_prefix(override) for override in args.overrides]
    if mistakes := list(config_dir_mistakes(args.config_dir, left)):
        return [], mistakes
    for override in list(left):
        if mistake := invalid_choice(override):
            mistakes.append(mistake)
            left.remove(override)
    while True:
        try:
            return _run_hydra(args, left), mistakes
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            if _wants_traceback():
                raise
            mistake, at_fault = hydra_mistake(error, left)
            mistakes.append(mistake)
            if at_fault not in left:
                return [], mistakes
            left.remove(at_fault)


def _run_hydra(args: Namespace, overrides: Sequence[str]) -> list[Job]:
    """Run Hydra on the command line, and collect the jobs instead of running them."""
    jobs: list[Job] = []
    sweep: list[bool] = []

    def collect(cfg: DictConfig) -> None:
        job = HydraConfig.get()
        with open_dict(cfg):
            cfg.pop("paper", None)  # a recipe's paper describes it and configures nothing
        # ${hydra:...} can be resolved only here; an interpolation without a target is left to the check, which reports it.
        with suppress(OmegaConfBaseException):
            OmegaConf.resolve(cfg)
        choices = {str(group): str(option) for group, option in job.runtime.choices.items()}
        folders = [Path(source.path) for source in job.runtime.config_sources if source.schema == "file"]
        # Not resolved: an override may hold an interpolation, which means nothing in this list.
        task: list[str] = OmegaConf.to_container(job.overrides.task)  # type: ignore[assignment]
        jobs.append(Job(cfg, [without_prefix(override) for override in task], choices, folders))
        sweep.append(job.mode == RunMode.MULTIRUN)

    with _errors_raised():
        run_hydra(
            args=Namespace(**vars(args) | {"overrides": list(overrides)}),
            args_parser=get_args_parser(),
            task_function=collect,
            config_path=str(conf_dir()),
            config_name="config",
        )
    for job, suffix in zip(jobs, suffixes([job.overrides for job in jobs]) if any(sweep) else [], strict=False):
        values: Any = OmegaConf.to_container(job.cfg)
        job.cfg.name, job.cfg.run_dir = f"{values['name']}{suffix}", f"{values['run_dir']}{suffix}"
    return jobs


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Set HYDRA_FULL_ERROR: without it, Hydra prints errors in its own form and exits with 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def _wants_traceback() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"
