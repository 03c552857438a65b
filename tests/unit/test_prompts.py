"""Problems from items: rendered once, cut or dropped when too long, evaluation never in training."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r1ray.config import Config, DataConfig, EvalConfig, ModelConfig, SourceConfig
from r1ray.data.prompts import evaluation_sets, problem_set, training_sets
from r1ray.data.templates import R1_ZERO


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    vocab = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def config(
    *, train=None, sets=None, max_prompt_length: int = 1000, overlong: str = "drop", template: str = "none"
) -> Config:
    return Config.model_construct(
        model=ModelConfig(path="builtin", template=template, facts=None),
        data=DataConfig(train=train or {}, max_prompt_length=max_prompt_length, overlong_prompt=overlong, shuffle=True),
        eval=EvalConfig.model_construct(sets=sets or {}),
    )


def table(folder: Path, name: str, *questions: str) -> SourceConfig:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"problem": q, "answer": str(n)}) + "\n" for n, q in enumerate(questions)))
    return SourceConfig(source="math500", path=str(file))


def test_a_problem_carries_everything(tokenizer, tmp_path: Path):
    source = table(tmp_path, "t", "How many?").model_copy(update={"accuracy": "judge"})
    (problem,) = problem_set("mine", source, config(template="r1_zero"), tokenizer).problems
    assert tokenizer.decode(problem.prompt_ids_T) == f"{R1_ZERO}User: How many?\nAssistant:"
    assert (problem.source, problem.verifier, problem.accuracy, problem.prefill) == ("mine", "math", "judge", "")
    assert problem.id.startswith("mine/")


def test_too_long_prompts_are_dropped_and_counted(tokenizer, tmp_path: Path):
    made = problem_set("t", table(tmp_path, "t", "short", "x" * 50), config(max_prompt_length=20), tokenizer)
    assert [p.messages[0].content for p in made.problems] == ["short"]
    assert (made.counts["overlong"], made.counts["kept"], made.counts["cut"]) == (1, 1, 0)


def test_too_long_prompts_are_cut_at_the_start_of_the_question(tokenizer, tmp_path: Path):
    long = "First a story without end. " * 9 + "What is 1 + 1?"
    limit = len(R1_ZERO) + len("User: \nAssistant:") + len("What is 1 + 1?")
    cfg = config(max_prompt_length=limit, overlong="cut", template="r1_zero")
    made = problem_set("t", table(tmp_path, "t", long), cfg, tokenizer)
    assert tokenizer.decode(made.problems[0].prompt_ids_T) == f"{R1_ZERO}User: What is 1 + 1?\nAssistant:"
    assert made.problems[0].messages[0].content == "What is 1 + 1?"
    assert (made.counts["cut"], made.counts["overlong"]) == (1, 0)


def test_a_cut_never_leaves_half_a_character(tokenizer, tmp_path: Path):
    made = problem_set(
        "t", table(tmp_path, "t", "问" * 10 + "?"), config(max_prompt_length=8, overlong="cut"), tokenizer
    )
    assert made.problems[0].messages[0].content == "问问?"


def test_a_template_that_does_not_fit_cannot_be_cut(tokenizer, tmp_path: Path):
    cfg = config(max_prompt_length=10, overlong="cut", template="r1_zero")
    with pytest.raises(ValueError, match=r"data.max_prompt_length=10"):
        problem_set("t", table(tmp_path, "t", "What is 1 + 1?"), cfg, tokenizer)


def test_too_long_prompts_can_be_an_error(tokenizer, tmp_path: Path):
    with pytest.raises(ValueError, match=r"has 50 tokens, data.max_prompt_length is 20"):
        problem_set("t", table(tmp_path, "t", "x" * 50), config(max_prompt_length=20, overlong="error"), tokenizer)


def test_evaluation_problems_never_occur_in_training(tokenizer, tmp_path: Path):
    cfg = config(
        train={"a": table(tmp_path, "a", "kept", "  What IS  it? ", "also kept")},
        sets={"held": table(tmp_path, "held", "What is it?")},
    )
    evaluation = evaluation_sets(cfg, tokenizer)
    train = training_sets(cfg, tokenizer, evaluation=evaluation.values())["a"]
    assert [p.messages[0].content for p in train.problems] == ["kept", "also kept"]
    assert train.counts["held_out"] == 1


def test_generated_problems_are_the_same_in_any_order_of_their_numbers(tokenizer, tmp_path: Path):
    (tmp_path / "train.jsonl").write_text(
        '{"numbers": [3, 2, 5], "target": 11}\n{"numbers": [3, 2, 5], "target": 30}\n'
    )
    (tmp_path / "test.jsonl").write_text('{"numbers": [5, 2, 3], "target": 11}\n')
    sources = {n: SourceConfig(source="countdown", path=str(tmp_path / f"{n}.jsonl")) for n in ("train", "test")}
    cfg = config(train={"a": sources["train"]}, sets={"b": sources["test"]})
    train = training_sets(cfg, tokenizer, evaluation=evaluation_sets(cfg, tokenizer).values())["a"]
    assert [p.id for p in train.problems] == ["countdown/2-3-5=30"]


def test_a_problem_in_two_training_sets_stays_in_the_first(tokenizer, tmp_path: Path):
    (tmp_path / "one.jsonl").write_text('{"numbers": [3, 2, 5], "target": 11}\n')
    (tmp_path / "two.jsonl").write_text('{"numbers": [5, 3, 2], "target": 11}\n{"numbers": [5, 3, 2], "target": 30}\n')
    sources = {n: SourceConfig(source="countdown", path=str(tmp_path / f"{n}.jsonl")) for n in ("one", "two")}
    sets = training_sets(config(train=sources), tokenizer, evaluation=())
    assert [len(made.problems) for made in sets.values()] == [1, 1]
    assert sets["two"].counts["duplicates"] == 1
