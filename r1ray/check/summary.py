"""What `check=true` prints: the arithmetic of a run before it starts."""

from r1ray.algo import policy_steps, roles_of
from r1ray.check.load import CheckedRun, CheckedStage
from r1ray.check.mistakes import NOT_CHECKED
from r1ray.config import Config, TrainerConfig
from r1ray.roles import AUXILIARY_TRAINERS, trainer_config


def describe(run: CheckedRun) -> str:
    lines = [
        "The configuration is fine.",
        "",
        f"  run {run.config.name} -> {run.config.run_dir} on {run.config.device}",
    ]
    for checked in run.stages:
        lines += ["", *(f"  {line}" for line in _stage(checked))]
    for title, chosen in (("worth knowing", False), ("not checked", True)):
        notes = [note.removeprefix(NOT_CHECKED) for note in run.notes if note.startswith(NOT_CHECKED) == chosen]
        lines += ["", f"  {title}", *(f"    {note}" for note in notes)] if notes else []
    return "\n".join(lines)


def _stage(checked: CheckedStage) -> list[str]:
    cfg, kind = checked.config, checked.stage.kind
    start = f"from stage {checked.stage.after}" if checked.stage.after else f"from {cfg.model.path}"
    lines = [f"stage {checked.name} ({kind}), {start}"]
    if kind == "rl":
        samples = cfg.algo.prompts_per_step * cfg.algo.group_size
        updates = "1 update" if cfg.algo.num_minibatches == 1 else f"{cfg.algo.num_minibatches} updates"
        lines.append(
            f"  batch      {cfg.algo.prompts_per_step} problems x {cfg.algo.group_size} completions = {samples} samples a step, "
            f"in {updates} of {samples // cfg.algo.num_minibatches}; {cfg.steps} steps = "
            f"{cfg.steps * samples:,} samples, {policy_steps(cfg.algo, cfg.steps) * cfg.algo.num_minibatches:,} updates"
        )
    if kind == "sft":
        lines.append(f"  batch      {cfg.sft.batch_size} sequences an update, {cfg.sft.epochs:g} epochs")
    else:
        total = cfg.data.max_prompt_length + cfg.rollout.max_response_length
        lines.append(
            f"  tokens     {cfg.data.max_prompt_length} prompt + {cfg.rollout.max_response_length} completion = {total}"
        )
    used = {"train": cfg.data.train, "eval": cfg.eval.sets} if kind != "eval" else {"eval": cfg.eval.sets}
    told = [f"{', '.join(sources)} to {use}" for use, sources in used.items() if sources]
    lines.append(f"  data       {'; '.join(told)}")
    return [*lines, *_actors(cfg, kind)]


def _actors(cfg: Config, kind: str) -> list[str]:
    """Each group of workers with what one of them asks for, and the sum."""
    size = cfg.rollout.tensor_parallel_size
    groups: dict[str, tuple[int, float, float, str]] = {}
    if kind != "sft":
        cpus, gpus = cfg.rollout.cpus_per_worker * size, cfg.rollout.gpus_per_worker * size
        groups["rollout"] = (cfg.rollout.num_workers, cpus, gpus, f"{cfg.rollout.engine}, {cfg.rollout.dtype}")
        if cfg.judge.path is not None:
            judge, size = cfg.judge, cfg.judge.tensor_parallel_size
            words = f"{judge.path}, {judge.dtype}"
            groups["judge"] = (judge.num_workers, judge.cpus_per_worker * size, judge.gpus_per_worker * size, words)
        groups["reward"] = (cfg.reward.num_workers, cfg.reward.cpus_per_worker, 0.0, ", ".join(cfg.reward.components))
    needed = roles_of(cfg.algo) if kind == "rl" else []
    if "reference" in needed:
        reference = cfg.reference
        words = f"ZeRO-{reference.zero_stage}"
        groups["reference"] = (reference.num_workers, reference.cpus_per_worker, reference.gpus_per_worker, words)
    if kind != "eval":
        trainer = cfg.trainer
        words = _words(trainer) + (f", LoRA of rank {cfg.model.lora.rank}" if cfg.model.lora else "")
        groups["policy"] = (trainer.num_workers, trainer.cpus_per_worker, trainer.gpus_per_worker, words)
        for role in AUXILIARY_TRAINERS:
            if role in needed:
                other = trainer_config(cfg, role)
                groups[role] = (other.num_workers, other.cpus_per_worker, other.gpus_per_worker, _words(other))
    lines = [f"  {role:11}{num} x {_amount(cpus, gpus)} ({words})" for role, (num, cpus, gpus, words) in groups.items()]
    cpus = sum(num * cpus for num, cpus, _, _ in groups.values())
    gpus = sum(num * gpus for num, _, gpus, _ in groups.values())
    return [*lines, f"  in all     {_amount(cpus, gpus)}"]


def _words(trainer: TrainerConfig) -> str:
    sharing = f", {trainer.sequence_parallel} ranks share a row" if trainer.sequence_parallel > 1 else ""
    return f"ZeRO-{trainer.zero_stage}, {trainer.precision}{sharing}"


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU" + (f" + {gpus:g} GPU" if gpus else "")
