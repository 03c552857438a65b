"""What `check=true` prints: batch sizes, lengths, datasets and workers of a run."""

from collections.abc import Iterator
from pathlib import Path

from r1ray.algo import policy_steps, roles_of
from r1ray.check.load import CheckedRun, CheckedStage
from r1ray.config import Config, TrainerConfig
from r1ray.mistakes import NOT_CHECKED, REPLACED, RESUME, WARNING
from r1ray.roles import AUXILIARY_TRAINERS, trainer_config
from r1ray.run.directory import RunDir
from r1ray.run.found import newest_in, step_of
from r1ray.stage_kinds import StageKind, kind_of

SECTIONS = (
    (WARNING, "warnings"),
    ("", "notes"),
    (REPLACED, "replaced (to keep the originals: builtin_substitute=none)"),
    (RESUME, "resume"),
    (NOT_CHECKED, "not checked"),
)
"""(prefix of notes, their title)."""


def describe(run: CheckedRun) -> str:
    """The page that `check=true` prints."""
    lines = [
        "The configuration is fine.",
        "",
        f"  run {run.config.name} -> {run.config.run_dir} on {run.config.device}",
    ]
    for checked in run.stages:
        lines += ["", *(f"  {line}" for line in _stage(checked))]
    for prefix, title in SECTIONS:
        others = (REPLACED, RESUME, NOT_CHECKED, WARNING)
        notes = [note for note in run.notes if note.startswith(prefix or others) == bool(prefix)]
        lines += ["", f"  {title}", *(f"    {note.removeprefix(prefix)}" for note in notes)] if notes else []
    return "\n".join(lines)


def _stage(checked: CheckedStage) -> Iterator[str]:
    cfg, kind = checked.config, kind_of(checked.stage.kind)
    start = f"stage {checked.stage.after}" if checked.stage.after else cfg.model.path
    yield f"stage {checked.name} ({checked.stage.kind}), from {start}"
    if cfg.resume == "auto":
        yield from _resume(RunDir(Path(cfg.run_dir).expanduser()).stage(checked.name).checkpoints)
    if kind.reinforcement:
        samples = cfg.algo.prompts_per_step * cfg.algo.group_size
        updates = "1 update" if cfg.algo.num_minibatches == 1 else f"{cfg.algo.num_minibatches} updates"
        yield (
            f"  batch      {cfg.algo.prompts_per_step} prompts x {cfg.algo.group_size} completions = {samples} samples per step, "
            f"in {updates} of {samples // cfg.algo.num_minibatches}; {cfg.steps} steps = "
            f"{cfg.steps * samples:,} samples, {policy_steps(cfg.algo, cfg.steps) * cfg.algo.num_minibatches:,} updates"
        )
    elif kind.trains:
        yield f"  batch      {cfg.sft.batch_size} sequences per update, {cfg.sft.epochs:g} epochs"
    if kind.generates:
        prompt, response = cfg.data.max_prompt_length, cfg.rollout.max_response_length
        yield f"  tokens     {prompt} prompt + {response} response = {prompt + response}"
    used = {"train": cfg.data.train if kind.trains else {}, "eval": cfg.eval.sets}
    yield "  data       " + "; ".join(f"{use}: {', '.join(sources)}" for use, sources in used.items() if sources)
    yield from _workers(cfg, kind)


def _resume(checkpoints: Path) -> Iterator[str]:
    """Sizes are compared here; the start of the run reads the files as well."""
    newest, skipped = newest_in(checkpoints)
    if newest is not None:
        yield f"  resume     after step {step_of(newest)}, from {newest}"
    for name, damage in skipped.items():
        yield f"  skipped    {name}: {damage}"


def _workers(cfg: Config, kind: StageKind) -> Iterator[str]:
    """Each group of workers with the resources of one of them, and the sum."""
    roles = roles_of(cfg.algo) if kind.reinforcement else ["policy"] if kind.trains else []
    groups: dict[str, tuple[int, float, float, str]] = {}
    engines = {"rollout": (cfg.rollout, cfg.rollout.engine), "judge": (cfg.judge, cfg.judge.path)}
    for role, (engine, name) in engines.items():
        if kind.generates and name is not None:
            size = engine.tensor_parallel_size
            cpus, gpus = engine.cpus_per_worker * size, engine.gpus_per_worker * size
            groups[role] = (engine.num_workers, cpus, gpus, f"{name}, {engine.dtype}")
    if kind.generates:
        groups["reward"] = (cfg.reward.num_workers, cfg.reward.cpus_per_worker, 0.0, ", ".join(cfg.reward.components))
    if "reference" in roles:
        reference = cfg.reference
        words = f"ZeRO-{reference.zero_stage}"
        groups["reference"] = (reference.num_workers, reference.cpus_per_worker, reference.gpus_per_worker, words)
    for role in ("policy", *AUXILIARY_TRAINERS):
        if role in roles:
            trainer = trainer_config(cfg, role)
            groups[role] = (
                trainer.num_workers,
                trainer.cpus_per_worker,
                trainer.gpus_per_worker,
                _words(cfg, role, trainer),
            )
    for role, (num, cpus, gpus, words) in groups.items():
        yield f"  {role:11}{num} x {_amount(cpus, gpus)} ({words})"
    cpus = sum(num * cpus for num, cpus, _, _ in groups.values())
    gpus = sum(num * gpus for num, _, gpus, _ in groups.values())
    yield f"  total      {_amount(cpus, gpus)}"


def _words(cfg: Config, role: str, trainer: TrainerConfig) -> str:
    sharing = f", sequence-parallel size {trainer.sequence_parallel}" if trainer.sequence_parallel > 1 else ""
    lora = f", LoRA of rank {cfg.model.lora.rank}" if role == "policy" and cfg.model.lora else ""
    return f"ZeRO-{trainer.zero_stage}, {trainer.precision}{sharing}{lora}"


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU" + (f" + {gpus:g} GPU" if gpus else "")
