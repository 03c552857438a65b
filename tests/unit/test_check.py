"""The configuration check: the messages for each mistake, before anything starts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from laid_over_defaults import check_values
from omegaconf import DictConfig

from r1ray.check import NOT_CHECKED, CheckedRun, ConfigError, datasets
from r1ray.cli import check_command_line, compose, run_cli
from r1ray.mistakes import AT_START
from r1ray.plan import describe
from r1ray.run.seal import seal

CHAT = "{% for m in messages %}{{ m.content }}{% endfor %}"
QWEN = ("model=qwen2_5_7b", "trainer.precision=bf16", "trainer.zero_stage=1", "rollout.dtype=bfloat16")
OWN_FILES = {
    "recipe/no_package": "# mine\ndefaults:\n  - override /algo: dapo\nname: mine\n",
    "recipe/bare": "name: mine\nsteps: 3\n",
    "recipe/nothing": "",
    "recipe/second_line": "# mine\n# @package _global_\nname: mine\n",
    "recipe/no_slash": "# @package _global_\ndefaults:\n  - override algo: dapo\n",
    "recipe/no_override": "# @package _global_\ndefaults:\n  - /algo: dapo\n",
    "recipe/neither": "# @package _global_\ndefaults:\n  - algo: dapo\n",
    "recipe/no_option": "# @package _global_\ndefaults:\n  - override /algo\n",
    "recipe/no_group": "# @package _global_\ndefaults:\n  - override /algos: dapo\n",
    "recipe/derived": "# @package _global_\ndefaults:\n  - no_slash\n  - _self_\nname: mine\n",
    "recipe/sound": "\n# @package _global_\ndefaults:\n  - dapo_32b\n  - _self_\nseed: 7\n",
    "recipe/loop": "# @package _global_\ndefaults: [pool, _self_]\nseed: 7\n",
    "recipe/pool": "# @package _global_\ndefaults: [loop, _self_]\nseed: 8\n",
    "scale/own": "steps: 7\n",
}
"""User recipes, all but one with a mistake."""


def save_model(folder: Path, *, chat_template: str) -> None:
    """A model folder with the files that the check reads."""
    folder.mkdir()
    config = {"max_position_embeddings": 1024, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300}
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": chat_template}))
    (folder / "model.safetensors").write_bytes(b"")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models, data and an old run; relative paths in overrides are relative to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    save_model(tmp_path / "thinks", chat_template=CHAT + "<think>")
    save_model(tmp_path / "silent", chat_template=CHAT)
    save_model(tmp_path / "experts", chat_template=CHAT + "<think>")
    config = tmp_path / "experts" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_local_experts": 8}))
    (tmp_path / "no_config").mkdir()
    (tmp_path / "good.jsonl").write_text('{"question": "2 + 2?", "answer": "so #### 4"}\n')
    (tmp_path / "columns.jsonl").write_text('{"query": "2 + 2?", "answer": "so #### 4"}\n')
    (tmp_path / "answered.jsonl").write_text('{"prompt": "2 + 2?", "answer": "4"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    answered = [json.dumps({"prompt": f"{n} + 2?", "answer": n + 2}) for n in range(150)]
    (tmp_path / "torn.jsonl").write_text("\n".join([*answered[:99], '{"prompt": ', *answered[100:]]))
    (tmp_path / "many.jsonl").write_text("\n".join(answered))
    null = [json.dumps({"prompt": f"{n} + 2?", "answer": None}) for n in range(60)]
    (tmp_path / "one_good.jsonl").write_text("\n".join([answered[0], *null]))
    (tmp_path / "a_file").write_text("")
    (tmp_path / "own.py").write_text(
        "from r1ray.plugin import Args, arguments\n\n\nclass RightArgs(Args):\n    strength: int = 1\n\n\n"
        "@arguments(RightArgs)\ndef right(problem, completions, context, args):\n    return [args.strength for _ in completions]\n"
    )
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text(
        "{seed: 0, model: {path: elsewhere}, algo: {name: grpo}, stages: {rl: {kind: rl}}}"
    )
    (tmp_path / "old/stages/rl").mkdir(parents=True)
    (tmp_path / "old/stages/rl/metrics.jsonl").write_text('{"step": 3}\n')
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "config.yaml").write_text(same_run())
    trainer = tmp_path / "trained/stages/rl/checkpoints/step_000010/trainer"
    trainer.mkdir(parents=True)
    (trainer / "layout.json").write_text(json.dumps({"num_workers": 2, "zero_stage": 0, "precision": "fp32"}))
    (trainer.parent / "state.json").write_text(json.dumps({"step": 10}))
    seal(trainer.parent)
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    (tmp_path / "conf" / "algo" / "bad.yaml").write_text("name: grpo\n  group_size: [1\n")
    (tmp_path / "conf" / "recipe").mkdir(parents=True)
    (tmp_path / "conf" / "recipe" / "latin.yaml").write_bytes(
        "# @package _global_\n# für mich\nseed: 7\n".encode("latin-1")
    )
    for name, text in OWN_FILES.items():
        (tmp_path / "conf" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "conf" / f"{name}.yaml").write_text(text)
    return tmp_path


def same_run() -> str:
    """The part of config.yaml that the check compares, of a run with the configuration of these tests."""
    return "{seed: 0, model: {path: thinks}, algo: {name: grpo}, stages: {rl: {kind: rl}}}"


@pytest.fixture(scope="module")
def base() -> DictConfig:
    return compose(["model.path=thinks"])


def check(*overrides: str) -> list[CheckedRun]:
    """The default configuration with `overrides` from the command line."""
    return check_command_line(["model.path=thinks", *overrides])


def gsm8k(path: str) -> tuple[str, ...]:
    return "data.train.mine.source=gsm8k", f"data.train.mine.path={path}"


def rows(path: str) -> tuple[str, ...]:
    return "data.train.mine.source=rows", f"data.train.mine.path={path}"


JUDGED = (
    "data.train.mine={source: rows, path: answered.jsonl, accuracy_component: judge}",
    "reward.components.judge={sources: [mine], args: {url: 'http://localhost:8000/v1', model: m}}",
)
"""An LLM judge for some of the data."""
OURS = (
    JUDGED[0],
    "reward.components.judge={sources: [mine], args: {max_tokens: 256, max_chars: 700}}",
    "judge.path=builtin",
    "judge.max_length=1024",
)
"""The same, with engines that the run starts."""
UNJUDGED = ("data.train.mine.accuracy_component=accuracy",)

# overrides, key of the mistake, words of its rule, words of its remedy
COMMAND_LINE = {
    "typo in a key": (["trainer.lrr=1"], "trainer.lrr", "trainer has no key lrr", "did you mean trainer.lr?"),
    "typo in a key, with +": (["+trainer.lrr=1"], "trainer.lrr", "no key lrr", "did you mean trainer.lr?"),
    "typo in a map's entry": (
        ["data.train.countdown.limits=3"], "data.train.countdown.limits", "no key limits", "data.train.countdown.limit?",
    ),
    "key of another group": (["lr=1"], "lr", "the configuration has no key lr", "did you mean trainer.lr or"),
    "typo in a group's name": (["recipes=r1_zero"], "recipes", "no key recipes", "did you mean recipe?"),
    "typo in a group's option": (["algo=grop"], "algo", "there is no algo/grop.yaml", "did you mean grpo?"),
    "the beginning of an option's name": (["recipe=swe"], "recipe", "there is no recipe/swe.yaml", "did you mean swe_rl_70b?"),
    "a stage that is not there": (
        ["stages.rll.config.steps=3"], "stages.rll.kind", "must be given", "or correct the name rll",
    ),
    "a part for problems that are not there": (
        ["reward.components.format.sources=[countdown,prose]"],
        "reward.components.format.sources", "not a name", "sources=[countdown]",
    ),
    "the middle of an option's name": (["recipe=or1"], "recipe", "there is no recipe/or1.yaml", "did you mean skywork_or1_32b?"),
    "a value for a group": (["trainer=5"], "trainer", "selects one file of conf/trainer", "default"),
    "null for a group": (["trainer=null"], "trainer", "selects one file of conf/trainer", "there are: default"),
    "null for a scale": (["scale=null"], "scale", "selects one file of conf/scale", "scale=none for none"),
    "no run directory": (["run_dir="], "run_dir", "must not be empty", "run_dir=runs/"),
    "nan": (["trainer.lr=nan"], "trainer.lr", "must be a finite number", "not nan or inf"),
    "no value": (["trainer.lr"], "the command line", "not of the form key=value", "write trainer.lr=VALUE"),
    "unclosed list": (["eval.pass_at=[1,2"], "the command line", "not of the form key=value", "quotes"),
    "several values": (["steps=1,2"], "steps", "several values, but this is one run", "--multirun"),
    "several stages' files": (["stages=[sft,rl]"], "stages", "selects one file of conf/stages", "in its defaults list"),
    "a group taken away": (["~data"], "data", "selects one file of conf/data", "countdown, countdown_hub"),
    "removing what is not there": (["~nope"], "nope", "there is no such key", "--cfg job"),
    "dangling interpolation": (["name=${nope}"], "name", "Interpolation key 'nope' not found", "${...}"),
    "no such config folder": (["--config-dir=nowhere"], "--config-dir", "is not a folder", "path"),
    "broken YAML": (["--config-dir=conf", "algo=bad"], "a YAML file", "bad.yaml", "indentation"),
    **{
        f"one's own recipe {what}": (["--config-dir=conf", f"recipe={name}"], f"conf/recipe/{name}.yaml", rule, remedy)
        for what, name, rule, remedy in (
            ("without a package", "no_package", "would be keys of recipe", "the first line: # @package _global_"),
            ("without a package and defaults", "bare", "is not its first line", "# @package _global_"),
            ("that is empty", "nothing", "sets nothing", "# @package _global_"),
            ("with the package on its second line", "second_line", "is not its first line", "# @package _global_"),
            ("without a slash", "no_slash", "write override /algo and the name", "- override /algo: dapo"),
            ("without override", "no_override", "write override /algo and the name", "- override /algo: dapo"),
            ("without both", "neither", "write override /algo and the name", "- override /algo: dapo"),
            ("without an option", "no_option", "the name of a file in conf/algo", "- override /algo: NAME"),
            ("of no such group", "no_group", "there is no group algos", "did you mean - override /algo?"),
        )
    },
    "a recipe that one's own begins with": (
        ["--config-dir", "conf", "recipe=derived"], "conf/recipe/no_slash.yaml", "write override /algo", "- override /algo: dapo",
    ),
    "a recipe that is derived from itself": (
        ["--config-dir", "conf", "recipe=loop"], "conf/recipe/loop.yaml", "is derived from itself, by pool", "remove it",
    ),
    "one's own recipe that is not UTF-8": (
        ["--config-dir", "conf", "recipe=latin"], "conf/recipe/latin.yaml", "is not UTF-8", "save it",
    ),
    "a cache that is no number": (
        ["reward.components.overlong.weight=1", "reward.components.overlong.args={max_length: 9, cache: abc}"],
        "reward.components.overlong.args.cache", "must be a whole number, not text", "whole number",
    ),
    "one of several recipes": (
        ["--config-dir", "conf", "-m", "recipe=dapo_32b,bare"], "conf/recipe/bare.yaml", "would be keys of recipe", "@package",
    ),
    "one's own scale": (["--config-dir=conf", "scale=own"], "conf/scale/own.yaml", "would be keys of scale", "@package"),
}  # fmt: skip
ONE_GPU = ["device=cuda", *(f"{section}.gpus_per_worker=0.3" for section in ("rollout", "trainer", "reference"))]
VALUES = {
    "text for a number": (["steps=many"], "steps", "must be a whole number, not text", "give a whole number"),
    "decimals for a whole number": (["steps=2.5"], "steps", "must be a whole number", "for example steps=2"),
    "true for a number": (["trainer.num_workers=true"], "trainer.num_workers", "must be a number, not true", "number"),
    "number for a text": (["name=123"], "name", "must be text, not a number", """'name="123"'"""),
    "mapping for a number": (["trainer.lr.x=1"], "trainer.lr", "must be a number, not a mapping", "number"),
    "unknown choice": (["trainer.precision=fp16"], "trainer.precision", "must be one of fp32, bf16_autocast, bf16", "bf16"),
    "out of range": (["steps=0"], "steps", "must be at least 1", "for example steps=1"),
    "list too short": (["trainer.betas=[0.9]"], "trainer.betas", "must be a list of two numbers", "trainer.betas=[0.9,0.95]"),
    "list too long": (["trainer.betas=[0.9,0.9,0.9]"], "trainer.betas", "must be a list of two numbers", "[0.9,0.95]"),
    "nothing for a text": (["name=null"], "name", "must be text, not nothing", "for example name=first_try"),
    "empty name": (["name=''"], "name", "must not be empty", "name=first_try"),
    "negative seed": (["seed=-1"], "seed", "must be at least 0", "seed=0"),
    "seed too large": (["seed=5000000000"], "seed", "must be at most 4294967295", "seed=4294967295"),
    "negative seed of the evaluation": (["eval.seed=-1"], "eval.seed", "must be at least 0", "eval.seed=0"),
    "seed of the evaluation too large": (["eval.seed=4294967296"], "eval.seed", "at most 4294967295", "eval.seed=4294967295"),
    "beta of one": (["trainer.betas=[0.9,1]"], "trainer.betas", "each must be less than 1", "smaller"),
    "negative beta": (["trainer.betas=[-0.1,0.9]"], "trainer.betas", "each must be at least 0", "larger"),
    "pass at none": (["eval.pass_at=[0]"], "eval.pass_at", "each must be at least 1", "larger"),
    "infinite dual clip": (["algo.dual_clip=inf"], "algo.dual_clip", "must be a finite number", "not nan or inf"),
    "dual clip that is no number": (["algo.dual_clip=nan"], "algo.dual_clip", "must be a finite number", "not nan or inf"),
    "infinite learning rate": (["trainer.lr=inf"], "trainer.lr", "must be a finite number", "not nan or inf"),
    "negative gap limit": (["trainer.logprob_gap_limit=-1"], "trainer.logprob_gap_limit", "must be greater than 0", "larger"),
    "gap limit that is no number": (
        ["trainer.logprob_gap_limit=nan"], "trainer.logprob_gap_limit", "must be greater than 0", "larger",
    ),
    "top-p of nothing": (["eval.top_p=0"], "eval.top_p", "must be greater than 0", "larger"),
    "no CPUs": (["cluster.num_cpus=0"], "cluster.num_cpus", "must be greater than 0", "larger"),
    "too cold to train": (["rollout.temperature=0.001"], "rollout.temperature", "at least 0.01", "rollout.temperature=0.01"),
    "nearly greedy": (["eval.temperature=0.001"], "eval.temperature", "from 0.01, or greedily", "eval.temperature=0"),
    "no reference workers": (["reference.num_workers=0"], "reference.num_workers", "must be at least 1", "num_workers=1"),
    "minibatches do not divide": (
        ["algo.num_minibatches=3"],
        "algo.num_minibatches", "must divide prompts_per_step * group_size = 64 * 8 = 512", "num_minibatches=4",
    ),
    "group of one": (["algo.group_size=1"], "algo.group_size", "at least 2", "algo.group_size=8"),
    "dual clip below one": (["algo.dual_clip=0.5"], "algo.dual_clip", "must be greater than 1", "give a larger value"),
    "unknown algorithm": (["algo.name=grop"], "algo.name", "not the name of an algorithm", "did you mean grpo?"),
    "algorithm in no module": (["algo.name=no.where:Algo"], "algo.name", "there is no module no.where", "PYTHONPATH"),
    "longer than the context": (
        ["rollout.max_response_length=2000"], "rollout.max_response_length", "64 + 2000 = 2064, but the model's context is 1024",
        "rollout.max_response_length=960",
    ),
    "heads do not divide": (
        ["rollout.tensor_parallel_size=3"], "rollout.tensor_parallel_size", "4 attention heads", "tensor_parallel_size=2",
    ),
    "too hot": (["eval.temperature=2.5"], "eval.temperature", "must be at most 2", "eval.temperature=2"),
    "cut distribution": (["rollout.top_p=0.9"], "rollout.top_p", "whole distribution", "rollout.top_p=1"),
    "top-k": (["rollout.top_k=20"], "rollout.top_k", "whole distribution", "rollout.top_k=-1"),
    "empty stop text": (["rollout.stop=['</answer>', '']"], "rollout.stop", "must not be empty", "</answer>"),
    "unknown engine": (["rollout.engine=vlm"], "rollout.engine", "not the name of an engine", "did you mean vllm?"),
    "engine in no module": (["rollout.engine=no.where:Engine"], "rollout.engine", "there is no module no.where", "PYTHONPATH"),
    "engine argument of ours": (["rollout.engine_args.dtype=half"], "rollout.engine_args.dtype", "sets this", "rollout.dtype"),
    "DeepSpeed key of ours": (
        ["trainer.deepspeed.zero_optimization.stage=2"], "trainer.deepspeed.zero_optimization.stage", "r1ray sets this",
        "trainer.zero_stage",
    ),
    "number for a DeepSpeed block": (
        ["trainer.deepspeed.zero_optimization=2"], "trainer.deepspeed.zero_optimization", "must be a mapping",
        "trainer.zero_stage",
    ),
    "text for a DeepSpeed block": (
        ["trainer.deepspeed.flops_profiler=on"], "trainer.deepspeed.flops_profiler", "must be a mapping", "flops_profiler.KEY",
    ),
    "unknown reward": (
        ["reward.components.fromat.weight=1"],
        "reward.components.fromat", "not the name of a reward", "did you mean format?",
    ),
    "reward in no module": (
        ["reward.components.mine.name=no.where:reward"], "reward.components.mine.name", "no module no.where", "PYTHONPATH",
    ),
    "reward whose module fails": (
        ["reward.components.mine.name=broken:reward"], "reward.components.mine.name", "nothing_of_this_name", "package",
    ),
    "reward's arguments": (
        ["reward.components.mine.name=own:right", "reward.components.mine.args.strenght=2"],
        "reward.components.mine.args.strenght", "takes no such argument", "did you mean reward.components.mine.args.strength?",
    ),
    "all weights zero": (
        ["reward.components.accuracy.weight=0", "reward.components.format.weight=0"],
        "reward.components", "every weight is 0", "weight=1.0",
    ),
    "overlong cache": (
        ["reward.components.overlong.args.cache=4096"], "reward.components.overlong.args.cache", "at most 384", "cache=76",
    ),
    "a part for a source that is not there": (
        ["reward.components.format.sources=[countdwn]"],
        "reward.components.format.sources", "not a name of data.train", "countdown",
    ),
    "an accuracy that leaves its source out": (
        ["reward.components.format.sources=[countdown]", "reward.components.accuracy.sources=[]"],
        "data.train.countdown.accuracy_component", "do not include countdown", "add countdown",
    ),
    "a judge without an address": (
        [*JUDGED, "reward.components.judge.args.url=null"], "reward.components.judge.args.url", "no address", "HOST:8000/v1",
    ),
    "a judge at no address": (
        [*JUDGED, "reward.components.judge.args.url=localhost:8000"],
        "reward.components.judge.args.url", "http://HOST:PORT/v1", "HOST:8000",
    ),
    "a key in a judge's address": (
        [*JUDGED, "reward.components.judge.args.url='http://me:key@host/v1'"],
        "reward.components.judge.args.url", "without a name or key",
        "url=http://HOST",
    ),
    "a judge without a model": (
        [*JUDGED, "reward.components.judge.args.model=null"],
        "reward.components.judge.args.model", "must name the model", "/v1/models",
    ),
    "a judge's address without a model of the run's own": (
        [*OURS, "judge.path=null"], "reward.components.judge.args.url", "no address", "judge.path=MODEL",
    ),
    "a judge's model that is not there": (
        [*OURS, "judge.path=./nowhere"], "judge.path", "is not a folder", "hub name",
    ),
    "a judge longer than its model": (
        [*OURS, "judge.max_length=2048"], "judge.max_length", "context is 1024", "judge.max_length=1024",
    ),
    "a judge without room for a question": (
        [*OURS, "judge.max_length=200"], "reward.components.judge.args.max_tokens", "leaves nothing", "max_tokens=100",
    ),
    "a judge that could not read what it is sent": (
        [*OURS, "reward.components.judge.args.max_chars=2000"],
        "reward.components.judge.args.max_chars", "from growing", "max_chars=768",
    ),
    "judges without a component that uses them": (
        [*JUDGED, "judge.path=builtin", "judge.max_length=1024"], "judge.path", "no reward asks", "judge.path=null",
    ),
    "judges split as their model is not": (
        [*OURS, "judge.tensor_parallel_size=3"], "judge.tensor_parallel_size", "4 attention heads", "judge.tensor_parallel_size=2",
    ),
    "GPUs for judges where there are none": (
        [*OURS, "judge.gpus_per_worker=1"], "judge.gpus_per_worker", "device is cpu", "judge.gpus_per_worker=0",
    ),
    "a judge's engine argument that is ours": (
        [*OURS, "judge.engine_args={dtype: half}"], "judge.engine_args.dtype", "r1ray sets this", "set judge.dtype",
    ),
    "a request's field for judges of the run's own": (
        [*OURS, "reward.components.judge.args.body={top_p: 0.9}"],
        "reward.components.judge.args.body", "chat_template_kwargs", "args.url",
    ),
    "a key for judges of the run's own": (
        [*OURS, "reward.components.judge.args.api_key_env=KEY"],
        "reward.components.judge.args.api_key_env", "need no key", "leave it out",
    ),
    "a judge of no kind": (
        [*JUDGED, "reward.components.judge.args.kind=pairwse"],
        "reward.components.judge.args.kind", "one of yes_no, score, pairwise",
        "did you mean pairwise?",
    ),
    "a judge's prompt without its fields": (
        [*JUDGED, "reward.components.judge.args.prompt='Is {answer} right?'"],
        "reward.components.judge.args.prompt", "has no {question}:",
        "{question}, {answer}",
    ),
    "a comparison's prompt with other fields": (
        [*JUDGED, "reward.components.judge.args.kind=pairwise", "reward.components.judge.args.prompt='{question} {answer}'"],
        "reward.components.judge.args.prompt", "has no {response_a} and no {response_b}", "{response_b}",
    ),
    "a judge without references": (
        [*JUDGED, "reward.components.judge.sources=[mine,countdown]"],
        "reward.components.judge.sources", "countdown's problems: the judge compares",
        "reward.components.judge.sources=[mine]",
    ),
    "a comparison without references": (
        [*JUDGED, "reward.components.judge.args.kind=pairwise", "reward.components.judge.sources=[countdown]", *UNJUDGED],
        "reward.components.judge.sources", "countdown's problems: the judge compares", "kind=score",
    ),
    "a judge's key instead of its variable": (
        [*JUDGED, "reward.components.judge.args.api_key_env=sk-12345"],
        "reward.components.judge.args.api_key_env", "names an environment",
        "export JUDGE_API_KEY",
    ),
    "a judge of points as what says right or wrong": (
        [
            *(*JUDGED, "eval.sets.mine={source: rows, path: one_good.jsonl, accuracy_component: judge}"),
            "reward.components.judge.args.kind=score",
        ],
        "eval.sets.mine.accuracy_component", "does not say whether a completion is correct",
        "reward.components.judge.args.kind=yes_no",
    ),
    "an argument that is none of a few": (
        ["reward.components.codeforces={args: {mode: foo}}"], "reward.components.codeforces.args.mode", "one of pass_fail, partial",
        "mode=pass_fail",
    ),
    "rewards without Ray": (["reward.local=true"], "reward.local", "is only for r1ray.grade", "reward.local=false"),
    "a judge for no source": (
        [*JUDGED, "reward.components.judge.args.concurrency=0"],
        "reward.components.judge.args.concurrency", "at least 1", "concurrency=1",
    ),
    "text for a judge's patience": (
        [*JUDGED, "reward.components.judge.args.timeout_s=long"],
        "reward.components.judge.args.timeout_s", "a number, not text", "give a number",
    ),
    "a judge more patient than the watch": (
        [*JUDGED, "reward.components.judge.args.timeout_s=200"], "reward.components.judge.args.timeout_s", "may take 440 s",
        "reward.timeout_s=440",
    ),
    "a judge's unknown argument": (
        [*JUDGED, "reward.components.judge.args.retry=3"], "reward.components.judge.args.retry", "judge takes no such argument",
        "did you mean reward.components.judge.args.retries?",
    ),
    "a weight of no step": (
        ["reward.components.format.schedule={soon: 1}"],
        "reward.components.format.schedule.soon", "whole number", "whole number",
    ),
    "unknown way to read answers": (
        ["data.train.countdown.extract=boxd"], "data.train.countdown.extract", "not the name of an answer", "did you mean boxed?",
    ),
    "way to read answers in no module": (
        ["eval.sets.countdown.extract=no.where:read"], "eval.sets.countdown.extract", "no module no.where", "PYTHONPATH",
    ),
    "a way to read answers where they are programs": (
        ["data.train.program.source=one_liners", "data.train.program.args={kind: program, num_problems: 9}",
         "data.train.program.extract=boxed"],
        "data.train.program.extract", "are programs", "extract=null",
    ),
    "no accuracy part": (
        ["reward.components.accuracy=null"], "data.train.countdown.accuracy_component", "there is no such component", "format",
    ),
    "template without think tags": (["model.template=none"], "model.template", "never mentions them", "model.template=r1_zero"),
    "chat template without think tags": (
        ["model.path=silent", "model.template=chat"], "model.template", "never mentions them", "reward.components.format.weight=0",
    ),
    "a chat's template without think tags": (
        ["model.path=silent", "model.template=deepscaler"],
        "model.template", "never mentions them", "reward.components.format.weight=0",
    ),
    "unknown template": (["model.template=r1zero"], "model.template", "not the name of a template", "did you mean r1_zero?"),
    "no such model folder": (["model.path=./nowhere"], "model.path", "nowhere is not a folder", "model=builtin"),
    "not a model folder": (["model.path=./no_config"], "model.path", "has no config.json", "transformers"),
    "typo in builtin": (["model.path=builtn"], "model.path", "nor a hub name", "did you mean builtin?"),
    "wrong properties": (
        [
            "model.properties={context_length: 9, num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 300, "
            "tie_word_embeddings: true}",
        ],
        "model.properties.context_length", "config.json has 1024", "model.properties=null",
    ),
    "unknown dataset": (
        ["data.train.countdown.source=cuntdown"], "data.train.countdown.source", "name of a dataset", "did you mean countdown?",
    ),
    "no such data file": (gsm8k("./missing.jsonl"), "data.train.mine.path", "missing.jsonl does not exist", "data.train.mine.path"),
    "missing column": (gsm8k("columns.jsonl"), "data.train.mine.path", '{"query": "2 + 2?"', "columns"),
    "empty dataset": (gsm8k("empty.jsonl"), "data.train.mine.path", "it has no rows", "data.train.mine"),
    "neither file nor hub name": (gsm8k("a b"), "data.train.mine.path", "nor a hub name", "org/name"),
    "argument of a set on the hub": (
        ["data.train.mine={source: deepcoder, path: org/code, args: {num_test: 3}}"],
        "data.train.mine.args.num_test", "no such argument",
        "did you mean data.train.mine.args.num_tests?",
    ),
    "rows kept by a rule of no form": (
        ["data.train.mine={source: math, path: org/math, args: {keep: {level: 3}}}"], "data.train.mine.args.keep", "min: NUMBER",
        "any_of: [Level 4, Level 5]",
    ),
    "generator's arguments": (
        ["data.train.countdown.args.num_problms=3"], "data.train.countdown.args.num_problms", "countdown takes no such argument",
        "did you mean data.train.countdown.args.num_problems?",
    ),
    "text for a number of problems": (
        ["data.train.countdown.args.num_problems=foo"], "data.train.countdown.args.num_problems",
        "must be a whole number, not text", "give a whole number",
    ),
    "more problems than there are": (
        ["data.train.countdown.args.num_problems=100000"], "data.train.countdown.args.num_problems",
        "3201 problems with 3 numbers, not 100000", "lower num_problems",
    ),
    "more held-out problems than there are": (
        ["eval.sets.countdown.args.num_problems=5000"], "eval.sets.countdown.args.num_problems",
        "1005 problems with 3 numbers, not 5000", "lower num_problems",
    ),
    "too many numbers": (
        ["data.train.countdown.args.num_numbers=7"], "data.train.countdown.args.num_numbers",
        "must be a number from 2 to 5", "num_numbers=[2,3]",
    ),
    "unknown verifier": (
        ["data.train.mine={source: rows, path: answered.jsonl, args: {verifier: mth}}"], "data.train.mine.args.verifier",
        "not the name of a verifier", "did you mean math?",
    ),
    "verifier of a hub dataset in no module": (
        ["data.train.mine={source: rows, path: org/name, args: {verifier: 'no.where:judge'}}"],
        "data.train.mine.args.verifier", "there is no module no.where", "PYTHONPATH",
    ),
    "no dataset": (["data.train.countdown=null"], "data.train", "names no dataset", "data=countdown"),
    "completions to imitate in an rl stage": (
        ["data.train.t.source=traces", "data.train.t.args.num_problems=9"], "data.train.t.source", "not problems to solve",
        "an SFT stage",
    ),
    "nothing to imitate in an sft stage": (["stages.rl.kind=sft"], "data.train.countdown.source", "without responses", "responses"),
    "evaluation of nothing": (
        ["stages.rl.kind=eval", "eval.sets.countdown=null", "checkpoint.best_metric=null"], "eval.sets", "names no dataset",
        "eval=countdown",
    ),
    "pass@k beyond the samples": (
        ["eval.pass_at=[1,8]"],
        "eval.pass_at", "pass@8 needs at least 8 completions", "eval.num_samples=8",
    ),
    "best of no evaluation": (
        ["checkpoint.best_metric=eval/aime/accuracy"], "checkpoint.best_metric", "no evaluation set gives this",
        "eval/countdown/accuracy",
    ),
    "best of no metric": (["checkpoint.best_metric=solved"], "checkpoint.best_metric", "no such metric", "eval/countdown"),
    "cuda without GPUs": (["device=cuda"], "trainer.gpus_per_worker", "each worker needs a GPU", "scale=one_gpu"),
    "GPUs without cuda": (["rollout.gpus_per_worker=1"], "rollout.gpus_per_worker", "device is cpu", "device=cuda"),
    "several GPUs a worker": (
        ["device=cuda", "trainer.gpus_per_worker=4"], "trainer.gpus_per_worker", "must be at most 1", "trainer.gpus_per_worker=1",
    ),
    "NCCL without GPUs": (["sync.backend=nccl"], "sync.backend", "device is cpu", "sync.backend=auto"),
    "NCCL with a shared GPU": (
        [*ONE_GPU, "trainer.num_workers=1", "sync.backend=nccl"],
        "sync.backend", "whole GPUs", "sync.backend=auto",
    ),
    "ranks on one GPU": (
        ONE_GPU, "trainer.gpus_per_worker", "2 ranks that compute together need whole GPUs", "trainer.num_workers=1",
    ),
    "sequence parallelism of DeepSpeed's own": (
        ["trainer.deepspeed.sequence_parallel_size=2"], "trainer.deepspeed.sequence_parallel_size", "r1ray sets this",
        "trainer.sequence_parallel",
    ),
    "ranks that form no whole groups": (
        ["trainer.num_workers=6", "trainer.sequence_parallel=4"], "trainer.num_workers", "must be a multiple of 4",
        "trainer.num_workers=8, or trainer.sequence_parallel=3",
    ),
    "heads that ranks cannot split": (
        ["trainer.num_workers=3", "trainer.sequence_parallel=3"], "trainer.sequence_parallel", "4 attention heads",
        "trainer.sequence_parallel=2 (possible: 1, 2, 4)",
    ),
    "IPC between GPUs": (
        ["device=cuda", *(f"{section}.gpus_per_worker=1" for section in ("rollout", "trainer", "reference")), "sync.backend=ipc"],
        "sync.backend", "one engine of one GPU and one trainer rank", "sync.backend=auto",
    ),
    "IPC between two engines and a trainer on one GPU": (
        [*ONE_GPU, "trainer.num_workers=1", "sync.backend=ipc"],
        "sync.backend", "rollout.num_workers=1", "sync.backend=auto",
    ),
    "vLLM's own sleep mode": (
        ["rollout.engine_args.enable_sleep_mode=true"], "rollout.engine_args.enable_sleep_mode", "sets this", "rollout.sleep",
    ),
    "a mixture of experts by its config": (
        ["model.path=experts"], "model.path", "is a mixture of experts (8 experts a layer by its config.json)", "a dense model",
    ),
    "a mixture of experts by its name": (
        ["model.path=deepseek-ai/DeepSeek-V3-Base"], "model.path", "is a mixture of experts (by its name, DeepSeek-V3)", "dense",
    ),
    "bf16 without ZeRO": (["trainer.precision=bf16"], "trainer.precision", "trains differently", "trainer.zero_stage=1"),
    "offload without ZeRO": (["trainer.cpu_offload=true"], "trainer.cpu_offload", "ZeRO stage 1 or higher", "trainer.zero_stage=1"),
    "engine rounds, trainer does not": (
        ["rollout.dtype=bfloat16"], "rollout.dtype", "every step would be skipped", "rollout.dtype=float32",
    ),
    "labels of no role": (
        ["cluster.labels.rolout={a: b}"], "cluster.labels.rolout", "must be one of rollout", "did you mean rollout?",
    ),
    "fault of another form": (["fault=rollout-kill"], "fault", "is not <role>[-<index>]:<action>@<step>", "rollout:kill@2"),
    "fault of no role": (["fault=engine:kill@2"], "fault", "no role is called 'engine'", "rollout:kill@2"),
    "fault that a role does not support": (["fault=[reward:fail@2]"], "fault", "reward has no action 'fail'", "rollout:kill@2"),
    "fault of a worker that is not there": (
        ["fault=[rollout-0:kill@2,rollout-1:kill@3]", "rollout.num_workers=1"], "fault", "rollout has 1 workers",
        "rollout-0, or a larger rollout.num_workers",
    ),
    "fault of a second driver": (["fault=driver-1:term@2"], "fault", "driver has 1 workers", "driver-0"),
    "negative restarts": (["cluster.max_restarts=-1"], "cluster.max_restarts", "must be at least 0", "cluster.max_restarts=0"),
    "no time between heartbeats": (["cluster.heartbeat_s=0"], "cluster.heartbeat_s", "must be greater than 0", "larger"),
    "watchdog without a wait": (["cluster.watchdog_s=0"], "cluster.watchdog_s", "must be greater than 0", "larger"),
    "run directory taken": (["run_dir=old"], "run_dir", "holds a run already", "resume=auto"),
    "another run's directory": (
        ["run_dir=old", "resume=auto"], "model.path", "was started with elsewhere", "model.path=elsewhere",
    ),
    "other trainer ranks": (
        ["run_dir=trained", "resume=auto", "trainer.num_workers=1"], "trainer.num_workers", "was saved with 2", "step_000010/hf",
    ),
    "another ZeRO stage": (
        ["run_dir=trained", "resume=auto", "stages.rl.config.trainer.zero_stage=1"], "stages.rl.config.trainer.zero_stage",
        "was saved with 0", "trainer.zero_stage=0",
    ),
    "run directory below a file": (["run_dir=a_file/x"], "run_dir", "is not a writable folder", "run_dir=FOLDER"),
    "stage after none": (["stages.rl.after=sfx"], "stages.rl.after", "there is no such stage", "there are: rl"),
    "stages in a circle": (
        ["stages.rl.after=b", "stages.b={kind: rl, after: rl}"], "stages.rl.after", "in a cycle", "stages.rl.after=null",
    ),
    "stage after an evaluation": (
        ["stages.e={kind: eval}", "stages.rl.after=e"], "stages.rl.after", "trains nothing", "stages.rl.after=null",
    ),
    "stage of no kind": (["stages.rl.kind=rll"], "stages.rl.kind", "not the name of a kind of stage", "did you mean rl?"),
    "typo in a stage": (
        ["stages.rl.config.trainer.lrr=1"], "stages.rl.config.trainer.lrr", "no key lrr", "stages.rl.config.trainer.lr?",
    ),
    "run directory of a stage": (
        ["stages.rl.config.run_dir=x"], "stages.rl.config.run_dir", "belongs to the whole run", "outside of stages",
    ),
    "list in a stage": (
        ["stages.rl.config.trainer.betas=[2,0.9]"], "stages.rl.config.trainer.betas", "each must be less than 1", "smaller",
    ),
    "stage's own batch": (
        ["stages.rl.config.algo.num_minibatches=3"], "stages.rl.config.algo.num_minibatches", "must divide", "num_minibatches=4",
    ),
    "a line far down that is not JSON": (
        rows("torn.jsonl"), "data.train.mine.path", "torn.jsonl, line 100: this is not JSON", "correct the file",
    ),
    "rows that a verifier could not use": (
        [*rows("many.jsonl"), "data.train.mine.args.verifier=countdown"], "data.train.mine.path",
        "not one of 150 rows can be used: numbers and target must be whole numbers", "data.train.mine.path",
    ),
}  # fmt: skip

# A mistake in two places is reported twice.
SEVERAL = {
    "stages in a circle": 2,
    "cuda without GPUs": 3,
    "no accuracy part": 2,
    "an accuracy that leaves its source out": 2,
}


def test_every_case_is_complete() -> None:
    assert len(COMMAND_LINE) + len(VALUES) >= 30


@pytest.mark.parametrize("case", COMMAND_LINE, ids=COMMAND_LINE)
def test_mistake_on_the_command_line_is_reported_with_the_remedy(case: str) -> None:
    overrides, key, rule, remedy = COMMAND_LINE[case]
    with pytest.raises(ConfigError) as caught:
        check(*overrides)
    assert_answer(caught.value, case, key=key, rule=rule, remedy=remedy)


@pytest.mark.parametrize("case", VALUES, ids=VALUES)
def test_mistake_in_a_value_is_reported_with_the_remedy(case: str, base: DictConfig) -> None:
    overrides, key, rule, remedy = VALUES[case]
    with pytest.raises(ConfigError) as caught:
        check_values(base, overrides)
    assert_answer(caught.value, case, key=key, rule=rule, remedy=remedy)


def assert_answer(error: ConfigError, case: str, *, key: str, rule: str, remedy: str) -> None:
    found = {mistake.key: mistake for mistake in error.mistakes}
    assert key in found, error
    assert rule in found[key].rule
    assert remedy in found[key].remedy
    assert str(found[key]) in str(error)
    assert len(found) == SEVERAL.get(case, 1), "one mistake causes one message"


def test_valid_user_recipe_has_no_mistakes() -> None:
    (run,) = check_command_line(["--config-dir", "conf", "recipe=sound"])
    assert (run.config.name, run.config.seed, run.config.algo.clip_high) == ("dapo_32b", 7, 0.28)


def test_tensorboard_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.check.rules.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        check("log.tensorboard=true")


def test_all_mistakes_are_reported_at_once() -> None:
    wrong = [
        "algo=grop",
        "model=qwen",
        "trainer.lrr=1",
        "steps=x",
        "rollout.top_p=0.5",
        "eval.pass_at=[9]",
        "reward.components.mine.name=no:fn",
    ]
    with pytest.raises(ConfigError) as caught:
        check(*wrong)
    keys = {mistake.key for mistake in caught.value.mistakes}
    assert keys == {
        "algo",
        "model",
        "trainer.lrr",
        "steps",
        "rollout.top_p",
        "eval.pass_at",
        "reward.components.mine.name",
    }


def test_valid_configuration_gives_a_checked_run() -> None:
    (run,) = check("trainer.lr=2e-4", "+steps=7", "rollout.engine_args.swap_space=1")
    assert (run.config.trainer.lr, run.config.steps) == (2e-4, 7)
    assert [(checked.name, checked.stage.kind) for checked in run.stages] == [("rl", "rl")]
    assert run.stages[0].config == run.config
    assert run.overrides == ["model.path=thinks", "trainer.lr=2e-4", "steps=7", "rollout.engine_args.swap_space=1"]
    assert run.raw["trainer"]["lr"] == 2e-4
    assert run.notes == [f"{NOT_CHECKED}rollout.engine_args swap_space: vllm checks them when it starts"]


@pytest.mark.parametrize(
    ("model", "template", "extract", "missing"),
    [
        ("silent", "none", "answer", "<answer>"),
        ("silent", "chat", "deepscaler", "</think>"),
        ("silent", "dapo", "gsm8k", "####"),
        ("silent", "dapo", "answer_line", None),
        ("silent", "none", "boxed", None),
        ("thinks", "r1_zero", "answer", None),
        ("org/model", "chat", "answer", None),
    ],
)
def test_extractor_that_no_prompt_mentions_is_noted(
    base: DictConfig, model: str, template: str, extract: str, missing: str | None
):
    mine = f"{{source: math500, path: good.jsonl, columns: {{problem: question}}, extract: {extract}}}"
    asked = [
        f"model.path={model}",
        f"model.template={template}",
        f"data.train.mine={mine}",
        "data.train.countdown=null",
    ]
    others = ["eval.sets.countdown=null", "checkpoint.best_metric=null", "reward.components.format=null"]
    notes = [note for note in check_values(base, [*asked, *others]).notes if "are read from" in note]
    assert len(notes) == (missing is not None)
    assert all(f"data.train.mine are read from {missing!r}" in note for note in notes)


def test_unused_judge_arguments_are_not_noted() -> None:
    (run,) = check("judge.engine_args={swap_space: 1, dtype: half}")
    assert run.notes == []


def test_judge_on_the_hub_is_noted_as_not_checked() -> None:
    (run,) = check(*OURS, "judge.path=org/judge")
    (note,) = [note for note in run.notes if "org/judge" in note]
    assert note.startswith(f"{NOT_CHECKED}judge.path=org/judge is a hub name") and "properties" not in note


def test_stage_is_the_base_merged_with_its_fragment() -> None:
    (run,) = check(
        "stages={rl: {kind: rl, after: warm}, warm: {kind: sft, config: {trainer: {lr: 0.5}, data: {train: {countdown: null}}}}}",
        "stages.warm.config.data.train.t={source: traces, args: {num_problems: 9}}",
    )
    assert [checked.name for checked in run.stages] == ["warm", "rl"]
    warm, rl = (checked.config for checked in run.stages)
    assert (warm.trainer.lr, rl.trainer.lr) == (0.5, run.config.trainer.lr)
    assert list(warm.data.train) == ["t"]
    assert list(rl.data.train) == ["countdown"]


def test_judge_together_with_rules_is_accepted() -> None:
    (run,) = check(*JUDGED)
    assert run.config.data.train["mine"].accuracy_component == "judge"
    score = "reward.components.judge={sources: null, args: {kind: score}}"
    assert check(*JUDGED, score), "a score needs no reference"


def test_judges_that_the_run_starts_are_accepted_and_counted(base: DictConfig) -> None:
    assert "  judge      1 x 0.1 CPU (builtin, float32)" in describe(check_values(base, OURS))


def test_summary_shows_ranks_that_share_rows(base: DictConfig) -> None:
    assert "2 x 0.1 CPU (ZeRO-0, fp32, sequence-parallel size 2)" in describe(
        check_values(base, ["trainer.sequence_parallel=2"])
    )


def test_key_of_a_judge_is_not_shown(base: DictConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        check_values(base, [*JUDGED, "reward.components.judge.args.api_key_env=sk-12345"])
    assert "sk-12345" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        check_values(base, [*JUDGED, "reward.components.judge.args.url='http://me:sk-12345@host/v1'"])
    assert "sk-12345" not in str(caught.value)


def test_own_code_by_import_path_is_accepted() -> None:
    (run,) = check("reward.components.mine={name: 'own:right', args: {strength: 2}}")
    assert run.config.reward.components["mine"].name == "own:right"


def test_own_engine_is_found_and_not_imported() -> None:
    (run,) = check("rollout.engine='broken:Engine'")
    assert run.config.rollout.engine == "broken:Engine"


@pytest.mark.parametrize(
    "override", ["trainer.logprob_gap_limit=inf", "eval.temperature=0", "seed=4294967295", "algo.clip_high=10"]
)
def test_values_at_their_bounds_are_accepted(override: str, base: DictConfig) -> None:
    assert check_values(base, [override]).stages


@pytest.mark.parametrize(
    ("override", "faults"),
    [
        ("fault=rollout:kill@3", ["rollout:kill@3"]),
        ("fault=[rollout-1:kill@3,policy:stop@5+0.4]", ["rollout-1:kill@3", "policy:stop@5+0.4"]),
        ("fault=[]", []),
    ],
)
def test_one_fault_or_a_list_is_accepted(override: str, faults: list[str], base: DictConfig) -> None:
    checked = check_values(base, [override, "rollout.num_workers=2", "trainer.num_workers=1", "reward.num_workers=1"])
    assert checked.config.fault == faults


def test_checkpoints_without_an_evaluation_are_noted(base: DictConfig) -> None:
    often = ["eval.every_steps=7", "checkpoint.every_steps=10"]
    (note,) = check_values(base, often).notes
    assert "not a multiple of eval.every_steps=7" in note and "every 70 steps" in note
    assert check_values(base, [*often, "checkpoint.best_metric=null"]).notes == []
    assert check_values(base, ["eval.every_steps=5", "checkpoint.every_steps=10"]).notes == []


def test_scale_that_replaces_numbers_of_a_recipe_is_noted() -> None:
    (run,) = check("recipe=r1_zero", "trainer.lr=3e-6")
    note, *replacements = run.notes
    assert note.startswith(
        "scale=tiny and the files it selects are composed after recipe=r1_zero and set model=builtin (recipe: "
    )
    assert "algo.group_size=8 (recipe: 16)" in note
    assert "rollout.max_response_length" not in note, "every stage has its own"
    assert "trainer.lr" not in note and "defaults" not in note
    assert [note.partition(" -> ")[0] for note in replacements] == [
        "replaced: data r1_mix",
        "replaced: eval aime24",
        "replaced: stages r1_zero",
    ]
    for without in ("scale=none", "~scale"):
        (run,) = check_command_line(["recipe=r1_zero", without, "trainer.max_tokens_per_micro_batch=131072"])
        assert all(note.startswith(NOT_CHECKED) for note in run.notes)
        assert run.config.algo.group_size == 16


def own_recipe(folder: Path, text: str, *, name: str = "mine") -> str:
    """The flag that leads to a recipe of one's own."""
    file = folder / "own_conf" / "recipe" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{text}")
    return f"--config-dir={folder / 'own_conf'}"


def test_scale_that_replaces_numbers_of_a_user_recipe_is_noted(workplace: Path) -> None:
    defaults = "defaults: [override /algo: dapo, override /model: qwen2_5_32b]\n"
    flag = own_recipe(workplace, f"{defaults}steps: 60\ntrainer: {{num_workers: 4, zero_stage: 2}}\n")
    (run,) = check_command_line([flag, "recipe=mine", "scale=cluster"])
    (note,) = (note for note in run.notes if "composed after recipe=mine" in note)
    assert "trainer.num_workers=32 (recipe: 4)" in note and "trainer.zero_stage=3 (recipe: 2)" in note
    assert "steps" not in note
    (run,) = check_command_line([flag, "recipe=mine", "scale=none"])
    assert not any("composed after" in note for note in run.notes)
    (run,) = check_command_line([flag, "recipe=mine", "trainer.num_workers=2", "algo=gspo"])
    assert any("algo.group_size=8 (recipe: " in note for note in run.notes), "a file that was chosen gives no number"
    (run,) = check_command_line([flag, "recipe=mine", "trainer.num_workers=2"])
    (note,) = (note for note in run.notes if "composed after recipe=mine" in note)
    assert "steps=40 (recipe: 60)" in note and "trainer.num_workers" not in note
    assert "model=builtin (recipe: qwen2_5_32b)" in note and note.startswith(AT_START)
    assert "algo.group_size=8 (recipe: 16)" in note, "a number of the algorithm that it chose"


@pytest.mark.parametrize("form", ["--config-dir={}", "--config-dir {}", "-cd {}"])
def test_user_file_with_the_name_of_a_built_in_one_is_refused(workplace: Path, form: str) -> None:
    flag = own_recipe(workplace, "steps: 7\n", name="dapo_32b").removeprefix("--config-dir=")
    with pytest.raises(ConfigError) as caught:
        check_command_line([*form.format(flag).split(), "recipe=dapo_32b"])
    (mistake,) = caught.value.mistakes
    assert mistake.key == "--config-dir" and mistake.rule.endswith("in place of yours: recipe/dapo_32b.yaml")


def test_key_that_every_stage_sets_is_not_required() -> None:
    (run,) = check_command_line(["recipe=skywork_or1_7b"])
    (note,) = (note for note in run.notes if "composed after" in note)
    assert "max_response_length" not in note and "trainer.lr=" in note


def test_recipe_derived_from_several_has_the_numbers_of_the_last(workplace: Path) -> None:
    flag = own_recipe(workplace, "steps: 10\n", name="two")
    for name, steps in (("three", 20), ("mine", None)):
        text = f"steps: {steps}\n" if steps else "defaults: [two, three, _self_]\nseed: 7\n"
        (workplace / "own_conf/recipe" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    (run,) = check_command_line([flag, "recipe=mine"])
    assert any("steps=40 (recipe: 20)" in note for note in run.notes)


@pytest.mark.parametrize("scale", ["tiny", "smoke"])
def test_stage_that_a_user_recipe_removes_stays_removed(workplace: Path, scale: str) -> None:
    stages = "defaults: [override /stages: deepscaler]\nstages: {middle: null, long: {after: short}}\n"
    (run,) = check_command_line([own_recipe(workplace, stages), "recipe=mine", f"scale={scale}"])
    assert [stage.name for stage in run.stages] == ["short", "long"]


def test_datasets_of_a_stage_are_listed() -> None:
    (run,) = check("recipe=orz_32b")
    lines = [line.strip() for line in describe(run).splitlines() if line.strip().startswith("data  ")]
    assert lines == ["data       train: countdown; eval: countdown", "data       train: hard; eval: countdown"]


def test_incomplete_dataset_is_removed_as_the_remedy_says() -> None:
    with pytest.raises(ConfigError) as caught:
        check_command_line(["recipe=dapo_32b", "scale=cluster", "eval=countdown"])
    (mistake,) = caught.value.mistakes
    assert (mistake.key, mistake.rule) == ("eval.sets.aime24.source", "must be given")
    assert mistake.remedy.startswith("remove it: eval.sets.aime24=null;")
    best = "checkpoint.best_metric=eval/countdown/accuracy"
    assert check_command_line(["recipe=dapo_32b", "scale=cluster", "eval=countdown", "eval.sets.aime24=null", best])


def test_stage_that_removes_a_missing_entry_is_noted() -> None:
    (run,) = check_command_line(["recipe=srpo_32b", "scale=cluster", "data=deepscaler"])
    assert any("stage maths removes code from data.train, which has only math" in note for note in run.notes)
    (run,) = check_command_line(["recipe=srpo_32b", "scale=cluster"])
    assert not any("takes code out" in note for note in run.notes)


def test_facts_of_another_model_are_not_used_silently() -> None:
    large = ["recipe=gpg_7b", "scale=cluster", "model.path=Qwen/Qwen2.5-7B"]
    (run,) = check_command_line(large)
    assert any(
        "model.properties are those of model=qwen2_5_math_7b (a context of 4096 tokens)" in note for note in run.notes
    )
    for known in ("model.properties=null", "model.path=Qwen/Qwen2.5-Math-7B"):
        (run,) = check_command_line([*large, known])
        assert not any("are those of" in note for note in run.notes)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["steps=10", "trainer.warmup_updates=11"], "make 10 updates: the learning rate never reaches"),
        (["steps=10", "trainer.warmup_updates=10"], None),
        (
            ["reward.components.overlong.weight=1", "reward.components.overlong.args.cache=200"],
            "from its token 184 on, of 384",
        ),
        (["reward.components.overlong.weight=1", "reward.components.overlong.args.cache=77"], None),
    ],
)
def test_settings_without_effect_are_noted(base: DictConfig, overrides: list[str], words: str | None) -> None:
    notes = check_values(base, overrides).notes
    assert [words in note for note in notes] == [True] if words else notes == []


def test_override_that_no_stage_uses_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        check_command_line(["recipe=deepscaler_1.5b", "steps=3"])
    (mistake,) = caught.value.mistakes
    assert mistake.key == "steps" and "every stage sets this key (short " in mistake.rule
    assert "stages.short.config.steps=3" in mistake.remedy
    (run,) = check_command_line(["recipe=deepscaler_1.5b", *(word for word in mistake.remedy.split())])
    assert [stage.config.steps for stage in run.stages] == [3, 3, 3]


def test_override_that_some_stage_ignores_is_noted() -> None:
    (run,) = check_command_line(["recipe=orz_32b", "trainer.lr_schedule=cosine"])
    assert any(
        note.startswith("trainer.lr_schedule=cosine has no effect in stages that set this key (") for note in run.notes
    )


def test_replacements_of_scale_smoke_are_noted() -> None:
    (run,) = check("recipe=dapo_32b", "scale=smoke")
    assert any("trainer.lr=0.0001 (recipe: 1e-06)" in note for note in run.notes)


def test_options_are_replaced_only_for_the_built_in_model() -> None:
    (run,) = check("data=dapo_math")
    assert list(run.config.data.train) == ["countdown"]
    assert run.notes == ["replaced: data dapo_math -> countdown: model=builtin"]
    assert "  replaced (to keep the originals: builtin_substitute=none)\n    data dapo_math -> countdown" in describe(
        run
    )
    (run,) = check("data=dapo_math", "builtin_substitute=none", "data.max_prompt_length=64")
    assert list(run.config.data.train) == ["math"]
    (run,) = check_command_line(["data=dapo_math", *QWEN])
    assert list(run.config.data.train) == ["math"]
    assert all(note.startswith(NOT_CHECKED) for note in run.notes)


def test_options_can_be_replaced_for_another_model() -> None:
    overrides = [
        "data=dapo_math",
        "reward=dapo",
        *QWEN,
        "builtin_substitute=builtin",
        "rollout.max_response_length=384",
    ]
    (run,) = check_command_line(overrides)
    assert {note for note in run.notes if note.startswith("replaced")} == {
        "replaced: data dapo_math -> countdown: builtin_substitute=builtin",
        "replaced: reward dapo -> reward.components.overlong.args.cache=77: builtin_substitute=builtin",
    }


def test_local_data_is_read() -> None:
    (run,) = check(*gsm8k("good.jsonl"))
    assert run.config.data.train["mine"].path == "good.jsonl"


def test_hub_names_are_checked_by_form_and_listed() -> None:
    (run,) = check(*QWEN, "model.path=Qwen/Qwen2.5-7B", *gsm8k("openai/gsm8k"))
    unchecked = [note for note in run.notes if note.startswith(NOT_CHECKED)]
    assert any("openai/gsm8k" in note for note in unchecked)
    assert any("Qwen/Qwen2.5-7B" in note for note in unchecked)


def test_hub_model_without_properties_is_noted_with_the_keys_to_set() -> None:
    (run,) = check("model.path=org/model")
    note = next(note for note in run.notes if "org/model" in note)
    assert all(
        fact in note
        for fact in (
            "context_length",
            "num_attention_heads",
            "num_key_value_heads",
            "vocab_size",
            "tie_word_embeddings",
        )
    )


def test_facts_of_a_hub_model_are_used() -> None:
    with pytest.raises(ConfigError, match="28 attention heads"):
        check(*QWEN, "model.path=Qwen/Qwen2.5-7B", "rollout.tensor_parallel_size=3")


def test_resume_of_the_same_run_is_accepted(workplace: Path) -> None:
    (run,) = check()
    (workplace / "again").mkdir()
    (workplace / "again" / "config.yaml").write_text(json.dumps(run.raw))
    (more,) = check("run_dir=again", "resume=auto", "steps=300")
    assert more.config.steps == 300


def test_number_of_ranks_can_change_when_no_trainer_state_is_loaded(workplace: Path) -> None:
    (run,) = check("run_dir=trained", "resume=auto", "trainer.num_workers=1", "steps=10")
    assert run.config.steps == 10
    shutil.rmtree(workplace / "trained/stages/rl/checkpoints/step_000010")
    (run,) = check("run_dir=trained", "resume=auto", "trainer.num_workers=1")
    assert run.config.trainer.num_workers == 1


def test_every_job_of_a_multirun_is_checked_and_has_its_own_directory() -> None:
    first, second = check("--multirun", "seed=1,2", "name=sweep")
    assert (first.config.seed, second.config.seed) == (1, 2)
    assert (first.config.run_dir, second.config.run_dir) == ("runs/sweep_seed_1", "runs/sweep_seed_2")
    assert first.config.name == "sweep_seed_1", "the name that wandb shows"
    with pytest.raises(ConfigError) as caught:
        check("--multirun", "steps=5,0")
    assert [mistake.value for mistake in caught.value.mistakes] == [0]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and output of `run_cli` with a main that says it was started."""
    monkeypatch.setattr(sys, "argv", ["r1ray", "model.path=thinks", *arguments])
    code = run_cli(lambda run: print(f"started {run.config.name} {run.config.seed}"))
    return code, capsys.readouterr().out


def test_valid_run_starts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, capsys, "seed=3") == (0, "started r1_zero 3\n")
    code, out = run(monkeypatch, capsys, "--multirun", "seed=1,2")
    names = [f"r1_zero_seed_{seed}" for seed in (1, 2)]
    lines = [
        line
        for number, name in enumerate(names, start=1)
        for line in (f"r1ray: run {number} of 2: {name} -> runs/{name}", f"started {name} {number}")
    ]
    assert (code, out.splitlines()) == (0, [*lines, "no metrics were logged"])
    code, out = run(monkeypatch, capsys, "data=dapo_math")
    assert (code, out) == (0, "r1ray: replaced: data dapo_math -> countdown: model=builtin\nstarted r1_zero 0\n")


def test_flags_of_hydra_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workplace: Path
) -> None:
    assert "lr: 0.5" in run(monkeypatch, capsys, "trainer.lr=0.5", "--cfg", "job")[1]
    assert "algo: grpo" in run(monkeypatch, capsys, "--info", "defaults-tree")[1]
    (workplace / "conf" / "algo" / "mine.yaml").write_text("defaults: [grpo]\nclip_high: 9.0\n")
    assert "clip_high: 9.0" in run(monkeypatch, capsys, "--config-dir", "conf", "algo=mine", "--cfg", "job")[1]
    out = run(monkeypatch, capsys, "--cfg", "job", "--package", "trainer")[1]
    assert "# @package trainer\n" in out and "algo" not in out


def test_printed_configuration_has_the_defaults_of_plugins_and_no_paper(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = run(monkeypatch, capsys, "recipe=vapo_32b", "trainer.lrr=1", "--cfg=job", "--resolve")
    shown = yaml.safe_load(out)
    assert code == 0 and "paper" not in shown
    assert shown["algo"]["args"]["critic_updates"] == 16, "a default of the algorithm's arguments"
    assert (shown["run_dir"], shown["trainer"]["lrr"]) == ("runs/vapo_32b", 1)
    assert run(monkeypatch, capsys, "algo=grop", "-c", "job") == (2, "")


def test_frozen_steps_are_not_counted_as_updates() -> None:
    (run,) = check("algo=ppo", "algo.args.policy_frozen_steps=2", "steps=5", "algo.num_minibatches=4")
    assert "5 steps = 2,560 samples, 12 updates" in describe(run)


def test_check_only_describes_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workplace: Path
) -> None:
    before = sorted(workplace.iterdir())
    code, out = run(monkeypatch, capsys, "check=true")
    assert code == 0
    assert "The configuration is fine." in out
    assert "64 prompts x 8 completions = 512 samples per step" in out
    assert "rollout    2 x 0.1 CPU" in out
    assert "started" not in out
    assert sorted(workplace.iterdir()) == before, "a check writes nothing"


def test_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError, match=r"did you mean trainer.lr\?"):
        run(monkeypatch, capsys, "trainer.lrr=1")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_command_with_a_mistake_exits_with_2_without_heavy_imports() -> None:
    main = (
        "import sys; from r1ray.cli import run_cli; code = run_cli(lambda run: print('started', run.config.name)); "
        "heavy = {'torch', 'transformers', 'ray', 'vllm', 'deepspeed', 'datasets', 'wandb'} & sys.modules.keys(); "
        "print('heavy', sorted(heavy)); sys.exit(code)"
    )
    command = [sys.executable, "-c", main, "model.path=thinks", "trainer.lrr=1", "algo=grop", "rollout.top_p=0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert all(words in done.stderr for words in ("did you mean trainer.lr?", "did you mean grpo?", "rollout.top_p=1"))
    assert "Traceback" not in done.stderr and "started" not in done.stdout
    assert "heavy []" in done.stdout


def test_submitted_job_whose_results_would_be_lost_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match=r"run_dir=/SHARED/FOLDER"):
        check("run_dir=runs/lost")
    assert check(f"run_dir={tmp_path / 'kept'}")


def test_mixture_of_experts_can_be_evaluated_but_not_trained() -> None:
    with pytest.raises(ConfigError, match=r"(?s)critic\.path = Qwen.*mixture of experts.*critic\.path=a dense model"):
        check("algo=ppo", "critic.path=Qwen/Qwen3-30B-A3B")
    assert check("stages.rl.kind=eval", "model.path=Qwen/Qwen3-30B-A3B", "model.template=r1_zero")


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (("rollout.sleep=true",), "vLLM keeps its memory"),
        (("rollout.sleep=true", "rollout.engine='broken:Engine'"), "whether broken:Engine can sleep and wake"),
        (("scale=cluster", "rollout.sleep=true"), "engine and trainer are not colocated"),
        (("scale=one_gpu", "rollout.sleep=false"), "only the memory that the engine leaves free"),
    ],
)
def test_sleep_without_effect_is_noted(overrides: tuple[str, ...], note: str) -> None:
    (run,) = check(*overrides)
    assert any(note in said for said in run.notes), run.notes


def test_scale_one_gpu_is_valid_for_every_trainer() -> None:
    for algo in ("grpo", "ppo", "prime"):
        (run,) = check("scale=one_gpu", f"algo={algo}")
        assert not any("sleep" in note for note in run.notes), run.notes
        assert run.config.rollout.sleep


def test_unusable_rows_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    once = {"prompt": "5 + 5?", "answer": 10}, {"prompt": "bad", "answer": None}
    Path("limited.jsonl").write_text("\n".join(map(json.dumps, once)))
    (run,) = check(*rows("one_good.jsonl"), "eval.sets.mine={source: rows, path: limited.jsonl, limit: 1}")
    notes = [note for note in run.notes if "cannot be used" in note]
    assert notes == [
        "60 of the 61 rows of data.train.mine cannot be used: there is no answer: columns.answer=COLUMN says which column holds "
        'it; the row: {"prompt": "0 + 2?", "answer": null}'
    ]
    assert not any("were read" in note for note in run.notes)
    assert notes[0] in describe(run)
    monkeypatch.setattr(datasets, "WHOLE_ROWS", 5)
    (run,) = check(*rows("one_good.jsonl"))
    assert any(
        note.startswith("4 of the first 5 rows of data.train.mine cannot be used: there is no answer")
        for note in run.notes
    )
    assert f"{NOT_CHECKED}data.train.mine.path=one_good.jsonl: only its first 5 rows were read" in run.notes


def test_only_the_first_rows_of_a_large_file_are_read(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "WHOLE_BYTES", (workplace / "torn.jsonl").stat().st_size - 1)
    (run,) = check(*rows("torn.jsonl"))
    assert run.notes == [f"{NOT_CHECKED}data.train.mine.path=torn.jsonl: only its first 64 rows were read"]
    (run,) = check(*rows("torn.jsonl"), "data.train.mine.limit=20")
    assert run.notes == [], "the run reads no more either"
    (run,) = check("data.train.more={source: one_liners, args: {kind: boxed, num_problems: 1000000000}}")
    assert not any("were read" in note for note in run.notes), "the rows of a generator are sound, and cost time"
