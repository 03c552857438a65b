"""Problems mined from an earlier stage's rollouts: will that stage have run, and written them?"""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from r1ray.check.stages import in_order
from r1ray.config import StageConfig
from r1ray.config.tree import has, value_of
from r1ray.data.mined import correct_range, mined_rows
from r1ray.data.schemas import as_list, as_object
from r1ray.mistakes import Mistake, did_you_mean

IN_RUN = re.compile(r"stages/([^/]+)/rollouts/?")
Trees = Mapping[str, Mapping[str, Any]]


def mined_problems(run_dir: str, stages: Mapping[str, StageConfig], trees: Trees) -> Iterator[Mistake]:
    """`trees` holds each stage's whole configuration as plain values."""
    for name, tree in trees.items():
        groups = ["eval.sets"] if stages[name].kind == "eval" else ["data.train", "eval.sets"]
        for group in groups:
            for source, entry in (as_object(value_of(tree, group)) or {}).items():
                fields = as_object(entry) or {}
                args = as_object(fields.get("args", {}))
                if fields.get("source") != "mined" or args is None:
                    continue  # of another kind, or of a form of which the schema speaks
                key = f"{group}.{source}"
                where = f"stages.{name}.config.{key}" if has(stages[name].config, key) else key
                yield from _source(where, fields.get("path"), args, name, run_dir, stages, trees)


def _source(
    key: str,
    path: Any,
    args: Mapping[str, Any],
    name: str,
    run_dir: str,
    stages: Mapping[str, StageConfig],
    trees: Trees,
) -> Iterator[Mistake]:
    if stages[name].kind != "rl" or ".sets." in key:
        rule = "mined problems are trained on by stages of kind rl"
        yield Mistake(key=f"{key}.source", value="mined", rule=rule, remedy="mine in data.train of an rl stage")
        return
    taken = [parameter for parameter in inspect.signature(mined_rows).parameters if parameter != "path"]
    for argument in sorted(set(args) - {*taken, "instruction"}):
        rule, remedy = "mined takes no such argument", did_you_mean(argument, taken)
        yield Mistake(key=f"{key}.args.{argument}", value=args[argument], rule=rule, remedy=remedy)
    try:
        fewest, _ = correct_range(args.get("correct"))
    except ValueError as error:
        remedy = f"{key}.args.correct=[0,3] for problems of which at most 3 completions were right"
        yield Mistake(key=f"{key}.args.correct", value=args.get("correct"), rule=str(error), remedy=remedy)
        return
    sources = args.get("sources")
    if sources is not None and as_list(sources) is None:
        rule, remedy = "must be a list of names of that stage's data.train", f"{key}.args.sources=[{sources}]"
        yield Mistake(key=f"{key}.args.sources", value=sources, rule=rule, remedy=remedy)
        return
    before = [stage for stage in in_order(stages)[: in_order(stages).index(name)] if stages[stage].kind == "rl"]
    example = f"{key}.path=stages/{before[-1] if before else 'STAGE'}/rollouts"
    if not isinstance(path, str):
        rule = "must name a folder of rollouts, relative to the run directory"
        yield Mistake(key=f"{key}.path", value=path, rule=rule, remedy=example)
        return
    found = IN_RUN.fullmatch(path)
    if found is None or (found[1] not in stages and (Path(run_dir).expanduser() / path).exists()):
        yield from _folder(key, path, args, run_dir, remedy=example)
    elif found[1] not in before:
        rule = f"no stage of kind rl that is called {found[1]} comes before {name}"
        yield Mistake(key=f"{key}.path", value=path, rule=rule, remedy=did_you_mean(found[1], before))
    else:
        yield from _earlier(key, found[1], args, fewest, stages[found[1]], trees[found[1]])


def _folder(key: str, path: str, args: Mapping[str, Any], run_dir: str, *, remedy: str) -> Iterator[Mistake]:
    """Of another run, or of one that goes on: it is read."""
    try:
        next(mined_rows(str(Path(run_dir).expanduser() / Path(path).expanduser()), **_known(args)))
    except (OSError, ValueError) as error:
        yield Mistake(key=f"{key}.path", value=path, rule=str(error), remedy=remedy)


def _earlier(
    key: str, name: str, args: Mapping[str, Any], fewest: int, stage: StageConfig, tree: Mapping[str, Any]
) -> Iterator[Mistake]:
    every, size = value_of(tree, "log.rollouts_every_steps"), value_of(tree, "algo.group_size")
    if every == 0:
        log = "log.rollouts_every_steps"
        where = f"stages.{name}.config.{log}" if has(stage.config, log) else log
        rule = f"stage {name} writes no rollouts, and {key} is to be mined from them"
        yield Mistake(
            key=where, value=every, rule=rule, remedy=f"{where}=1 (every step: all its problems can be mined)"
        )
    if isinstance(size, int) and fewest > size:
        rule = f"stage {name} has groups of {size} completions, of which never {fewest} are right"
        yield Mistake(
            key=f"{key}.args.correct", value=args["correct"], rule=rule, remedy=f"{key}.args.correct=[0,{size // 4}]"
        )
    there, sources = as_object(value_of(tree, "data.train")) or {}, as_list(args.get("sources"))
    for source in sources or ():
        if source not in there:
            rule = f"stage {name} has no such source"
            yield Mistake(key=f"{key}.args.sources", value=sources, rule=rule, remedy=did_you_mean(str(source), there))


def _known(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: args[name] for name in ("correct", "sources") if name in args}
