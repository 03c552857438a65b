"""Problems from items: rendered once, truncated or dropped when too long, evaluation problems never in training."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from reward_samples import completion, context
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r1ray.config import Config, CurriculumConfig, DataConfig, EvalConfig, ModelConfig, SftConfig, SourceConfig
from r1ray.data.answer_marks import missing_mark
from r1ray.data.prompts import (
    ProblemSet,
    dropped_rows,
    evaluation_sets,
    problem_set,
    training_sets,
    with_control_tokens,
)
from r1ray.data.sft import SftSet, sft_set
from r1ray.data.templates import R1_ZERO
from r1ray.reward.accuracy import accuracy
from r1ray.stages.context import StageContext
from r1ray.stages.rl import problems_of

NUMBERS = {"numbers": "numbers"}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte."""
    vocab = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def config(
    *, train=None, sets=None, max_prompt_length: int = 1000, overlong: str = "drop", template: str = "none"
) -> Config:
    return Config.model_construct(
        model=ModelConfig(path="builtin", template=template, properties=None, lora=None),
        data=DataConfig(
            train=train or {},
            curriculum=CurriculumConfig(name="none", args={}),
            max_prompt_length=max_prompt_length,
            overlong_prompt=overlong,
            shuffle=True,
        ),
        eval=EvalConfig.model_construct(sets=sets or {}),
        sft=SftConfig.model_construct(max_length=1000),
    )


def table(folder: Path, name: str, *questions: str) -> SourceConfig:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"problem": q, "answer": str(n)}) + "\n" for n, q in enumerate(questions)))
    return SourceConfig(source="math500", path=str(file))


def test_problem_has_all_fields(tokenizer, tmp_path: Path):
    source = table(tmp_path, "t", "How many?").model_copy(update={"accuracy_component": "judge", "extract": "boxed"})
    (problem,) = problem_set("mine", source, config(template="r1_zero"), tokenizer).problems
    assert tokenizer.decode(problem.prompt_ids_T) == f"{R1_ZERO}User: How many?\nAssistant:"
    assert (problem.source, problem.verifier, problem.accuracy, problem.prefill) == ("mine", "math", "judge", "")
    assert problem.extract == "boxed"
    assert problem.id.startswith("mine/")


def test_too_long_prompts_are_dropped_and_counted(tokenizer, tmp_path: Path):
    made = problem_set("t", table(tmp_path, "t", "short", "x" * 50), config(max_prompt_length=20), tokenizer)
    assert [p.messages[0].content for p in made.problems] == ["short"]
    assert (made.counts["overlong"], made.counts["kept"], made.counts["cut"]) == (1, 1, 0)


def test_too_long_prompts_are_truncated_at_the_start_of_the_question(tokenizer, tmp_path: Path):
    long = "First a story without end. " * 9 + "What is 1 + 1?"
    limit = len(R1_ZERO) + len("User: \nAssistant:") + len("What is 1 + 1?")
    cfg = config(max_prompt_length=limit, overlong="cut", template="r1_zero")
    made = problem_set("t", table(tmp_path, "t", long), cfg, tokenizer)
    assert tokenizer.decode(made.problems[0].prompt_ids_T) == f"{R1_ZERO}User: What is 1 + 1?\nAssistant:"
    assert made.problems[0].messages[0].content == "What is 1 + 1?"
    assert (made.counts["cut"], made.counts["overlong"]) == (1, 0)


def test_truncation_never_splits_a_character(tokenizer, tmp_path: Path):
    made = problem_set(
        "t", table(tmp_path, "t", "问" * 10 + "?"), config(max_prompt_length=8, overlong="cut"), tokenizer
    )
    assert made.problems[0].messages[0].content == "问问?"


def test_template_that_is_too_long_is_an_error(tokenizer, tmp_path: Path):
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
    sources = {
        n: SourceConfig(source="countdown_hub", path=str(tmp_path / f"{n}.jsonl"), columns=NUMBERS)
        for n in ("train", "test")
    }
    cfg = config(train={"a": sources["train"]}, sets={"b": sources["test"]})
    train = training_sets(cfg, tokenizer, evaluation=evaluation_sets(cfg, tokenizer).values())["a"]
    assert [p.id for p in train.problems] == ["countdown/2-3-5=30"]


def instructed(source: SourceConfig, instruction: str) -> SourceConfig:
    return source.model_copy(update={"args": {"instruction": instruction}})


def trained_on(cfg: Config, tokenizer) -> dict[str, ProblemSet]:
    return training_sets(cfg, tokenizer, evaluation=evaluation_sets(cfg, tokenizer).values())


def questions(made: ProblemSet) -> list[str]:
    return [problem.messages[-1].content.partition("\n\n")[0] for problem in made.problems]


@pytest.mark.parametrize(("in_training", "in_evaluation"), [("Box it.", ""), ("", "Box it."), ("Box it.", "Be brief.")])
def test_evaluation_problem_is_recognised_despite_an_instruction(
    tokenizer, tmp_path: Path, in_training: str, in_evaluation: str
):
    train, held = table(tmp_path, "a", "kept", "What is it?"), table(tmp_path, "held", "What is it?")
    cfg = config(train={"a": instructed(train, in_training)}, sets={"held": instructed(held, in_evaluation)})
    made = trained_on(cfg, tokenizer)["a"]
    assert questions(made) == ["kept"]
    assert made.counts["held_out"] == 1


def test_evaluation_problem_is_recognised_despite_truncation(tokenizer, tmp_path: Path):
    long = "First a story without end. " * 9 + "What is 1 + 1?"
    cfg = config(
        train={"a": table(tmp_path, "a", "kept", long)},
        sets={"held": table(tmp_path, "held", long)},
        max_prompt_length=30,
        overlong="cut",
    )
    assert evaluation_sets(cfg, tokenizer)["held"].counts["cut"] == 1
    made = trained_on(cfg, tokenizer)["a"]
    assert questions(made) == ["kept"]
    assert (made.counts["held_out"], made.counts["cut"]) == (1, 0)


def test_evaluation_problem_is_recognised_despite_a_system_prompt(tokenizer, tmp_path: Path):
    prompt = [{"role": "system", "content": "Think first."}, {"role": "user", "content": "What is it?"}]
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps({"prompt": prompt, "answer": "1"}) + '\n{"prompt": "kept", "answer": "2"}\n')
    train, held = SourceConfig(source="rows", path=str(file)), table(tmp_path, "held", "What is it?")
    made = trained_on(config(train={"a": train}, sets={"held": held}), tokenizer)["a"]
    assert questions(made) == ["kept"]


def test_problems_that_are_only_a_system_prompt_are_distinguished(tokenizer, tmp_path: Path):
    file = tmp_path / "chat.jsonl"
    prompts = [[{"role": "system", "content": content}] for content in ("one", "two")]
    file.write_text("".join(json.dumps({"prompt": prompt, "answer": "1"}) + "\n" for prompt in prompts))
    train, held = SourceConfig(source="rows", path=str(file)), table(tmp_path, "held", "two")
    assert questions(trained_on(config(train={"a": train}, sets={"held": held}), tokenizer)["a"]) == ["one"]


def test_a_problem_in_two_training_sets_stays_in_the_first(tokenizer, tmp_path: Path):
    sources = {
        "one": instructed(table(tmp_path, "one", "first", "both"), "Box it."),
        "two": table(tmp_path, "two", " BOTH ", "second"),
        "three": table(tmp_path, "three", "second", "third", "first"),
    }
    sets = training_sets(config(train=sources), tokenizer, evaluation=())
    assert [questions(made) for made in sets.values()] == [["first", "both"], ["second"], ["third"]]
    assert [made.counts["duplicates"] for made in sets.values()] == [0, 1, 2]


def test_a_countdown_problem_in_two_training_sets_stays_in_the_first(tokenizer, tmp_path: Path):
    (tmp_path / "one.jsonl").write_text('{"numbers": [3, 2, 5], "target": 11}\n')
    (tmp_path / "two.jsonl").write_text('{"numbers": [5, 3, 2], "target": 11}\n{"numbers": [5, 3, 2], "target": 30}\n')
    sources = {
        n: SourceConfig(source="countdown_hub", path=str(tmp_path / f"{n}.jsonl"), columns=NUMBERS)
        for n in ("one", "two")
    }
    sets = training_sets(config(train=sources), tokenizer, evaluation=())
    assert [len(made.problems) for made in sets.values()] == [1, 1]
    assert sets["two"].counts["duplicates"] == 1


def test_dataset_without_new_problems_is_an_error(tokenizer, tmp_path: Path):
    source = table(tmp_path, "one", "first", "second")
    with pytest.raises(ValueError, match=r"source 'b': no problem is left of 2.*'duplicates': 2.*earlier sets"):
        training_sets(config(train={"a": source, "b": source}), tokenizer, evaluation=())


def examples(tokenizer, tmp_path: Path, *chats: list[str], held: SourceConfig, **fields) -> tuple[list[str], SftSet]:
    """The training examples from chats (alternating user and assistant) while `held` is an evaluation set."""
    rows = [
        {"messages": [{"role": "assistant" if i % 2 else "user", "content": c} for i, c in enumerate(chat)]}
        for chat in chats
    ]
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"chats": SourceConfig(source="sft", path=str(file), **fields)}
    made = sft_set(config(train=train, sets={"held": held}), tokenizer)
    return [tokenizer.decode(sample.token_ids_T[sample.mask_T == 1]) for sample in made.samples], made


def test_sft_examples_never_contain_evaluation_problems(tokenizer, tmp_path: Path):
    held = instructed(table(tmp_path, "held", "What is it?"), "Box it.")
    chats = (["Who?", "me"], ["what is  it?", "leaked"], ["Who?", "me again"])
    learned, made = examples(tokenizer, tmp_path, *chats, held=held, args={"instruction": "Be brief."})
    assert learned == ["me<eos>", "me again<eos>"]  # a question may have several responses
    assert (made.counts["held_out"], made.counts["kept"], made.counts["rows"]) == (1, 2, 3)


def test_earlier_turns_of_a_chat_never_contain_evaluation_problems(tokenizer, tmp_path: Path):
    held = table(tmp_path, "held", "What is it?")
    learned, made = examples(tokenizer, tmp_path, ["Who?", "me"], ["What is it?", "leaked", "Sure?", "yes"], held=held)
    assert learned == ["me<eos>"]
    assert made.counts["held_out"] == 1


def test_countdown_traces_never_contain_evaluation_problems(tokenizer, tmp_path: Path):
    (tmp_path / "test.jsonl").write_text('{"numbers": [5, 2, 3], "target": 11}\n')
    held = SourceConfig(source="countdown_hub", path=str(tmp_path / "test.jsonl"), columns=NUMBERS)
    asked = "Make 11 from 5, 2, 3. Use each number once."
    learned, _ = examples(tokenizer, tmp_path, [asked, "leaked"], [asked.replace("11", "30"), "5 * 2 * 3"], held=held)
    assert learned == ["5 * 2 * 3<eos>"]


@pytest.mark.parametrize(
    ("extract", "template", "question", "missing"),
    [
        ("answer", "none", "2 + 2?", "<answer>"),
        ("boxed_in_answer", "none", "2 + 2?", "<answer>"),
        ("answer", "none", "2 + 2? Completion in <answer> </answer>.", None),
        ("answer", "r1_zero", "2 + 2?", None),
        ("deepscaler", "none", "2 + 2?", "</think>"),
        ("answer_line", "r1_zero", "2 + 2?", "Answer:"),
        ("answer_line", "none", "2 + 2? The last line is Answer: and the number.", None),
        ("dapo", "none", "2 + 2? End with a line: ANSWER: and the number.", None),
        ("dapo", "none", "2 + 2?", "answer:"),
        ("boxed", "none", "2 + 2?", None),
        (None, "none", "2 + 2?", None),
    ],
)
def test_missing_instruction_for_the_extractor_is_found(
    tokenizer, tmp_path: Path, extract: str | None, template: str, question: str, missing: str | None
):
    source = table(tmp_path, "t", "1 + 1?", question).model_copy(update={"extract": extract})
    problems = problem_set("t", source, config(template=template), tokenizer).problems
    assert missing_mark(problems, tokenizer) == missing


def test_thinking_chat_template_counts_as_an_instruction(tokenizer, tmp_path: Path):
    source = table(tmp_path, "t", "1 + 1?").model_copy(update={"extract": "deepscaler"})
    problems = problem_set("t", source, config(), tokenizer).problems
    tokenizer.chat_template = "{{ messages[0].content.split('</think>')[-1] }}<think>"
    try:
        assert missing_mark(problems, tokenizer) is None
    finally:
        tokenizer.chat_template = None


def with_golds(folder: Path, name: str, *golds: str | None) -> SourceConfig:
    file = folder / f"{name}.jsonl"
    file.write_text(
        "".join(json.dumps({"problem": f"{name} {n}", "answer": gold}) + "\n" for n, gold in enumerate(golds))
    )
    return SourceConfig(source="math500", path=str(file))


def test_dropped_rows_are_reported(tokenizer, tmp_path: Path):
    def reported(num_good: int, *, num_bad: int, **fields) -> str | None:
        source = with_golds(tmp_path, "t", *["1"] * num_good, *[None] * num_bad).model_copy(update=fields)
        return dropped_rows(problem_set("t", source, config(), tokenizer))

    reason = 'there is no usable answer in None; the row: {"problem": "t 1", "answer": null}'
    assert reported(1, num_bad=60) == f"60 of 61 rows are dropped: 60 cannot be used ({reason})"
    assert (reported(9, num_bad=1) or "").startswith(
        "1 of 10 rows are dropped: 1 cannot be used (there is no usable answer"
    )
    assert (reported(10, num_bad=1) or "").startswith("1 of 11 rows are dropped"), "malformed rows are always reported"
    assert reported(3, num_bad=0) is None
    source = with_golds(tmp_path, "e", *["1"] * 30, None)
    every_loss = dropped_rows(problem_set("e", source, config(), tokenizer), noticeable=0) or ""
    assert every_loss.startswith("1 of 31 rows are dropped"), "evaluation sets report every row"
    ten_of_forty = {"args": {"keep": {"answer": {"any_of": ["1", None]}}}}
    source = with_golds(tmp_path, "k", *["2"] * 30, *["1"] * 9, None).model_copy(update=ten_of_forty)
    assert (dropped_rows(problem_set("k", source, config(), tokenizer)) or "").startswith("1 of 10 rows")


def test_overlong_and_held_out_problems_are_reported_and_duplicates_are_not(tokenizer, tmp_path: Path):
    held = table(tmp_path, "held", "one", "two")
    train = table(tmp_path, "train", "one", "two", "three", "x" * 50)
    cfg = config(
        train={"t": train, "again": table(tmp_path, "u", "three", "four")}, sets={"held": held}, max_prompt_length=20
    )
    sets = training_sets(cfg, tokenizer, evaluation=evaluation_sets(cfg, tokenizer).values())
    long = "1 have a prompt of more than data.max_prompt_length tokens"
    assert dropped_rows(sets["t"]) == f"3 of 4 rows are dropped: {long}; 2 are problems of eval.sets too"
    assert dropped_rows(sets["again"]) is None


def test_a_stage_reports_the_sets_whose_rows_are_dropped(tokenizer, tmp_path: Path, capsys):
    train, sets = with_golds(tmp_path, "bad", "1", None), with_golds(tmp_path, "good", "1")
    cfg = config(train={"mine": train}, sets={"good": sets, "mine": with_golds(tmp_path, "held", "1", None)})
    events: list[tuple[str, dict]] = []
    run = SimpleNamespace(event=lambda kind, **fields: events.append((kind, fields)))
    seeded: Any = cfg.model_copy(update={"seed": 0})
    context = StageContext(name="rl", cfg=seeded, run=cast("Any", run), model_path="")
    problems_of(context, tokenizer)
    first, *lines = [line.partition(": 1 cannot")[0] for line in capsys.readouterr().out.splitlines()]
    assert first == "r1ray: problems for training: mine 1"
    assert lines.pop(1) == "r1ray: problems for evaluation: good 1, mine 1"
    assert lines == [f"r1ray: {key}.mine: 1 of 2 rows are dropped" for key in ("data.train", "eval.sets")]
    assert [(kind, fields["use"], fields["unreadable"]) for kind, fields in events] == [
        ("data_loaded", "train", 1), ("data_loaded", "eval", 0), ("data_loaded", "eval", 1),
    ]  # fmt: skip


def test_control_tokens_in_questions_are_plain_text(tokenizer, tmp_path: Path) -> None:
    """They are counted, with an example. With the template `none` the question is the prompt, so they count as written."""
    questions = ("say <eos> and <eos>", "\ue0100\ue011 <eos>", "plain", "</think> <answer>7</answer>")
    source = table(tmp_path, "t", *questions)
    made = problem_set("t", source, config(template="r1_zero"), tokenizer)
    for problem, question in zip(made.problems, questions, strict=True):
        assert tokenizer.decode(problem.prompt_ids_T) == f"{R1_ZERO}User: {question}\nAssistant:"
        assert tokenizer.eos_token_id not in problem.prompt_ids_T and problem.prefill == ""
        assert problem.messages[0].content == question
    assert made.counts["control_tokens"] == 2 and made.counts["kept"] == 4
    words = with_control_tokens(made, "r1_zero") or ""
    assert words.startswith("2 prompts contain control tokens ('<eos>' in t/") and words.endswith(
        "encoded as plain text"
    )
    written = problem_set("t", source, config(template="none"), tokenizer)
    assert [list(p.prompt_ids_T).count(tokenizer.eos_token_id) for p in written.problems] == [2, 1, 0, 0]
    assert "count as such, because model.template=none" in (with_control_tokens(written, "none") or "")
    assert with_control_tokens(problem_set("t", table(tmp_path, "u", "x"), config(), tokenizer), "none") is None


def test_think_tags_in_a_question_do_not_move_the_beginning_of_an_answer(tokenizer, tmp_path: Path) -> None:
    source = table(tmp_path, "t", "Which tag ends <think>? </think><answer>9</answer>")
    (problem,) = problem_set("t", source, config(template="oat_r1"), tokenizer).problems
    assert problem.prefill == "<think>"
    texts = ("9?</think> <answer>0</answer>", "0?</think> <answer>9</answer>", "no end, </answer>0")
    scored = accuracy(problem, [completion(text) for text in texts], context())
    assert [score.correct for score in scored] == [True, False, False]


def test_null_bytes_and_a_million_characters_cost_at_most_their_row(tokenizer, tmp_path: Path) -> None:
    started = time.monotonic()
    for rule, times in (("drop", 200_000), ("cut", 2_000)):
        source = table(tmp_path, rule, "1 + 1\0?", "long " * times, "<eos>" * (times // 4))
        made = problem_set("t", source, config(template="r1_zero", overlong=rule), tokenizer)
        assert len(made.problems) == (1 if rule == "drop" else 3)
        assert "\0" in tokenizer.decode(made.problems[0].prompt_ids_T)
        assert made.counts["overlong" if rule == "drop" else "cut"] == 2
    assert time.monotonic() - started < 60
