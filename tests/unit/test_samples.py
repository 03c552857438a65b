"""Groups -> samples: one test for each mask convention."""

import numpy as np
import pytest
from algo_samples import score

from r1ray.algo.grpo import Grpo
from r1ray.data.samples import to_samples
from r1ray.types import Completion, Group, Problem, VersionSpan

EOS = 1
PROMPT = np.int32([5, 9, 4])


def completion(ids, *, finish_reason="stop"):
    return Completion(
        token_ids_T=np.int32(ids),
        rollout_logprobs_T=-np.arange(1, len(ids) + 1, dtype=np.float32),
        temperature=0.6,
        text="",
        finish_reason=finish_reason,
        versions=(VersionSpan(version=2, start=0, end=len(ids)),),
    )


def group(completions, scores, *, problem_id="p", epoch=0):
    problem = Problem(id=problem_id, source="s", messages=(), prompt_ids_T=PROMPT, verifier="v", payload={})
    return Group(problem=problem, completions=tuple(completions), scores=tuple(scores), epoch=epoch)


def one(made, *, truncated="score", reward=1.0, usable=True):
    (sample,) = to_samples([group([made], [score(reward, usable=usable)])], truncated=truncated)
    return sample


def test_prompt_is_never_in_the_mask():
    sample = one(completion([7, 8, EOS]))
    assert sample.token_ids_T.tolist() == [5, 9, 4, 7, 8, EOS]
    assert sample.mask_T[:3].tolist() == [0, 0, 0]


def test_sampled_eos_is_in_the_mask():
    sample = one(completion([7, 8, EOS]))
    assert sample.token_ids_T[-1] == EOS
    assert sample.mask_T.tolist() == [0, 0, 0, 1, 1, 1]


def test_nothing_is_appended_to_a_truncated_completion():
    sample = one(completion([7, 8], finish_reason="length"))
    assert sample.token_ids_T.tolist() == [5, 9, 4, 7, 8]
    assert sample.mask_T.tolist() == [0, 0, 0, 1, 1]


def test_rollout_logprobs_are_at_their_tokens():
    assert one(completion([7, 8, EOS])).rollout_logprobs_T.tolist() == [0, 0, 0, -1, -2, -3]


@pytest.mark.parametrize(("truncated", "mask"), [("zero", [1, 1]), ("score", [1, 1]), ("mask", [0, 0])])
def test_truncated_completion_is_masked_as_configured_and_keeps_its_score(truncated, mask):
    sample = one(completion([7, 8], finish_reason="length"), truncated=truncated)
    assert sample.score.reward == 1.0
    assert sample.mask_T[3:].tolist() == mask
    assert sample.usable


@pytest.mark.parametrize("truncated", ["zero", "score", "mask"])
def test_finished_completion_is_not_affected_by_the_truncation_rule(truncated):
    sample = one(completion([7, EOS]), truncated=truncated)
    assert sample.score.reward == 1.0
    assert sample.mask_T.tolist() == [0, 0, 0, 1, 1]


def test_unusable_completion_has_an_empty_mask():
    assert not one(completion([7, EOS]), usable=False).mask_T.any()


def test_order_index_and_fields_of_the_completion_are_kept():
    groups = [
        group([completion([k, EOS]) for k in (10, 11)], [score(0.0), score(1.0)], problem_id=name) for name in "ab"
    ]
    samples = to_samples(groups, truncated="score")
    assert [(s.group_id, s.index, int(s.token_ids_T[3])) for s in samples] == [
        ("a@0", 0, 10),
        ("a@0", 1, 11),
        ("b@0", 0, 10),
        ("b@0", 1, 11),
    ]
    assert {s.temperature for s in samples} == {0.6}
    assert samples[0].versions[0].version == 2


def test_same_problem_in_two_epochs_makes_two_groups():
    both = [group([completion([7, EOS])] * 2, [score(r), score(r)], epoch=e) for e, r in ((0, 0.0), (1, 1.0))]
    from algo_samples import algo_config

    out = Grpo(cfg=algo_config(), max_response_length=8).advantages(to_samples(both, truncated="score"), {})
    assert all(not s.advantages_T.any() for s in out)
