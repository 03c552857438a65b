"""Another model as the judge, where rules cannot decide: YES or NO by a reference (Seed-Verifier, arXiv 2504.13914), a score, or a
comparison with a reference response in both orders, since judges prefer a position (arXiv 2306.05685, 3.3).

A judge that fails makes its completions unusable: its failure is never a 0. `prompts` has the prompts, how a verdict is read, and
what happens to text that is written to influence the judge.
"""

from collections.abc import Sequence

from r1ray.plugin import arguments
from r1ray.reward.base import ComponentScore, correct_or_incorrect, per_group
from r1ray.reward.judge.args import JudgeArgs
from r1ray.reward.judge.client import client_of
from r1ray.reward.judge.prompts import KINDS, judge_message, question_of, reference_of
from r1ray.reward.text import after_thinking
from r1ray.types import Problem

FAILED = ComponentScore(value=None, status="sandbox_error")


@per_group
@arguments(JudgeArgs)
def judge(problem: Problem, texts_G: Sequence[str], args: JudgeArgs) -> list[ComponentScore]:
    """A judge's verdict on each response (`JudgeArgs.kind`).

    A response that has nothing after the thinking, or is longer than `max_chars`, earns 0 without a request.
    """
    kind, text = KINDS[args.kind], args.text
    reference = reference_of(problem.payload)
    if found := args.cannot_score(problem.payload):
        raise ValueError(
            f"{problem.id} has no reference: {found[0]}. List the sources that have one as the component's `sources`"
        )
    fields = {"question": question_of(problem), "reference": str(reference)}
    prompts_G: list[list[str]] = []
    for response in texts_G:
        answer = (response if args.thinking else after_thinking(response)).strip()
        if not after_thinking(response).strip() or len(answer) > args.max_chars:
            prompts_G.append([])
        elif args.kind == "pairwise":
            sides = [(answer, fields["reference"]), (fields["reference"], answer)]
            prompts_G.append([judge_message(kind, text, fields | {"response_a": a, "response_b": b}) for a, b in sides])
        else:
            prompts_G.append([judge_message(kind, text, fields | {"answer": answer})])
    verdicts = client_of(args).verdicts((prompt for prompts in prompts_G for prompt in prompts), kind.read)
    return [_score(args.kind, [verdicts[prompt] for prompt in prompts]) for prompts in prompts_G]


def _score(kind: str, verdicts: Sequence[float | None]) -> ComponentScore:
    """Of one response, from the verdicts on it: none, one, or one in each order."""
    known = [verdict for verdict in verdicts if verdict is not None]
    if len(known) < len(verdicts):
        return FAILED
    if kind == "yes_no":
        return correct_or_incorrect(known == [1.0])
    if not known:
        return ComponentScore(value=0.0, status="wrong_answer")
    if kind == "pairwise":
        as_first, as_second = known[0], 1.0 - known[1]
        return ComponentScore(value=(as_first + as_second) / 2)
    return ComponentScore(value=known[0])
