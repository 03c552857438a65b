"""Problems mined from a stage's rollouts: which ones, and that they are verified as in that stage."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from r1ray.check import load
from r1ray.cli import compose
from r1ray.config import Config, SourceConfig
from r1ray.data.prompts import problem_set
from r1ray.data.sources import in_run_dir, load_source
from r1ray.reward import make
from r1ray.reward.base import RewardContext
from r1ray.run.log import write_rollouts
from r1ray.types import Completion, Group, Message, Problem, Score


def problem(name: str, **fields: Any) -> Problem:
    made = Problem(
        id=name,
        source="countdown",
        messages=(Message(role="user", content=f"question {name}"),),
        prompt_ids_T=np.array([1], np.int32),
        verifier="countdown",
        payload={"numbers": [2, 3], "target": 5},
        meta={"difficulty": 2},
        prefill="of another template",
    )
    return replace(made, **fields)


def group(asked: Problem, num_correct: int | None, *, size: int = 4, broken: int = 0) -> Group:
    """The last `broken` completions could not be scored; None: no correctness."""
    completion = Completion(
        token_ids_T=np.zeros(1, np.int32),
        rollout_logprobs_T=np.zeros(1, np.float32),
        temperature=1.0,
        text='he said "index": 0\u2028',
        finish_reason="stop",
        versions=(),
    )
    scores = tuple(
        Score(
            reward=0.0,
            correct=None if num_correct is None else k < num_correct or k >= size - broken,
            components={},
            statuses={},
            usable=k < size - broken,
            seconds=0.0,
        )
        for k in range(size)
    )
    return Group(problem=asked, completions=(completion,) * size, scores=scores)


def write(run: Path, steps: Mapping[int, Sequence[Group]]) -> Path:
    folder = run / "stages/rl/rollouts"
    for step, groups in steps.items():
        write_rollouts(folder, groups, step=step, decode=str)
    return folder


def mine(folder: Path, *, correct: list[int], **args: Any) -> list[str]:
    cfg = SourceConfig(source="mined", path=str(folder), args={"correct": correct, **args})
    return [item.id or "" for item in load_source("hard", cfg).items]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    old = [group(problem("solved"), 0), group(problem("lost"), 4), group(problem("never"), 0)]
    prose = problem("prose", source="prose", accuracy="judge", verifier="exact", payload={"answers": ["5"]})
    new = [group(problem("solved"), 4), group(problem("lost"), 1), group(problem("mixed"), 2), group(prose, 1)]
    other = [group(problem("unsaid"), None), group(problem("unscored"), 1, broken=2)]
    return write(tmp_path / "run", {9: old, 10: new, 11: other})


def test_newest_group_of_a_problem_counts(folder: Path) -> None:
    assert mine(folder, correct=[0, 1]) == ["lost", "never", "prose", "unscored"]
    assert mine(folder, correct=[0, 0]) == ["never"]
    assert mine(folder, correct=[4, 4]) == ["solved"]
    assert mine(folder, correct=[2, 2]) == ["mixed"]


def test_sources_can_be_selected(folder: Path) -> None:
    assert mine(folder, correct=[0, 4], sources=["prose"]) == ["prose"]


def test_mined_problem_is_verified_as_in_its_stage(folder: Path) -> None:
    cfg = SourceConfig(source="mined", path=str(folder), args={"correct": [0, 0]})
    (item,) = load_source("hard", cfg).items
    assert (item.verifier, item.payload, item.meta) == (
        "countdown",
        {"numbers": [2, 3], "target": 5},
        {"difficulty": 2},
    )
    assert item.messages == (Message(role="user", content="question never"),)


def test_empty_range_is_reported_with_the_counts(folder: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"none of the 6 problems .* has 3 to 3 correct .* 0 correct: 1, 1 correct: 3, 2 correct: 1, 4 correct: 1",
    ):
        mine(folder, correct=[3, 3])


def test_stage_without_rollouts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no stage wrote rollouts to .* log\.rollouts_every_steps=1"):
        mine(tmp_path / "stages/rl/rollouts", correct=[0, 3])


@pytest.mark.parametrize("correct", [[3, 0], [0], [-1, 2], "03", [0.5, 1], None, [True, True]])
def test_invalid_range_is_refused(folder: Path, correct: Any) -> None:
    with pytest.raises(ValueError, match=r"must be \[fewest, most\]"):
        mine(folder, correct=correct)


def test_rollouts_cannot_name_code_to_import(tmp_path: Path) -> None:
    folder = write(tmp_path, {1: [group(problem("a"), 0), group(problem("b", extract="boxed"), 0)]})
    file = folder / "step_000001.jsonl"
    text = file.read_text().replace('"verifier": "countdown"', '"verifier": "own:verifier"', 1)
    file.write_text(text.replace('"extract": "boxed"', '"extract": "own:extract"'))
    with pytest.raises(ValueError, match="not one of 2 rows can be used: verifier 'own:verifier'"):
        mine(folder, correct=[0, 4])


def config(run: Path, *overrides: str) -> Config:
    return load(compose([f"run_dir={run}", *overrides])).config


NO_CURRICULUM = ("data.max_prompt_length=600", "model.template=none", "reward.components.format=null")


class Characters:
    """A tokenizer with one token per character."""

    bos_token_id, bos_token = None, None
    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        return [ord(character) for character in text]

    def __call__(self, text: str, **kwargs: Any) -> dict[str, list[int]]:
        return {"input_ids": self.encode(text)}


def test_path_is_relative_to_the_run_directory(folder: Path, tmp_path: Path) -> None:
    cfg = config(tmp_path / "run", *NO_CURRICULUM)
    source = SourceConfig(
        source="mined", path="stages/rl/rollouts", args={"correct": [0, 1], "sources": ["countdown"]}, extract="boxed"
    )
    made = problem_set("hard", source, cfg, Characters())
    first = made.problems[0]
    assert [p.id for p in made.problems] == ["lost", "never", "unscored"]
    assert (first.source, first.accuracy, first.extract, first.prefill) == ("hard", "accuracy", "boxed", "")
    assert in_run_dir(source, cfg).path == str(tmp_path / "run/stages/rl/rollouts")
    # The payload that was written to the file is what the verifier reads.
    (score,) = make(cfg.reward).score(
        first, (completion("2 + 3"),), RewardContext(step=1, seed=0, max_response_length=9)
    )
    assert score.correct


def completion(text: str) -> Completion:
    return Completion(
        token_ids_T=np.zeros(1, np.int32),
        rollout_logprobs_T=np.zeros(1, np.float32),
        temperature=1.0,
        text=f"<think>so</think> \\boxed{{{text}}}",
        finish_reason="stop",
        versions=(),
    )


def test_accuracy_and_extract_are_kept_per_problem(tmp_path: Path) -> None:
    judged = problem("a", accuracy="judge", extract="boxed")
    write(tmp_path, {1: [group(judged, 0), group(problem("b"), 0)]})
    cfg = config(tmp_path, *NO_CURRICULUM, "reward.components.judge={name: accuracy}")
    source = SourceConfig(source="mined", path="stages/rl/rollouts", args={"correct": [0, 0]}, extract="answer")
    a, b = problem_set("hard", source, cfg, Characters()).problems
    assert (a.accuracy, a.extract) == ("judge", "boxed")
    assert (b.accuracy, b.extract) == ("accuracy", "answer"), "what a problem does not set comes from its source"


def test_missing_accuracy_component_is_named(folder: Path, tmp_path: Path) -> None:
    cfg = config(tmp_path / "run", *NO_CURRICULUM)
    source = SourceConfig(source="mined", path="stages/rl/rollouts", args={"correct": [0, 4], "sources": ["prose"]})
    with pytest.raises(
        ValueError, match=r"'judge' decided which .* does not score these problems .*: add reward\.components\.judge"
    ):
        problem_set("hard", source, cfg, Characters())


def test_file_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    (folder / "step_000001.jsonl").write_text(json.dumps({"question": "?"}) + "\n")
    with pytest.raises(ValueError, match=r"step_000001.jsonl is no rollouts file"):
        mine(folder, correct=[0, 1])
