"""Another model as the judge, for what rules cannot judge: YES or NO by a reference (Seed-Verifier, arXiv 2504.13914), a score, or
a comparison with a reference response on either side, since judges favour a place (arXiv 2306.05685, 3.3).

A judge that fails makes its responses unusable: it is never a 0. What its prompts are, how a verdict is read, and what becomes of
text that is written for the judge instead of for the reader: `prompts`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from r1ray.reward.base import ComponentScore, RewardContext, correct_or_incorrect, response_text
from r1ray.reward.judge.client import client_of
from r1ray.reward.judge.prompts import KINDS, filled, question_of, reference_of, text_of
from r1ray.reward.judge.server import Endpoint
from r1ray.reward.text import after_thinking
from r1ray.types import Completion, Problem

MAX_TOKENS, MAX_CHARS = 2048, 20_000
FAILED = ComponentScore(value=None, status="sandbox_error")


def judge(
    problem: Problem,
    completions_G: Sequence[Completion],
    context: RewardContext,
    *,
    url: str | Sequence[str] | None = None,
    model: str | None = None,
    kind: str = "yes_no",
    prompt: str | None = None,
    rubric: str | None = None,
    thinking: bool = False,
    max_chars: int = MAX_CHARS,
    temperature: float = 0.0,
    max_tokens: int = MAX_TOKENS,
    timeout_s: float = 60.0,
    retries: int = 4,
    concurrency: int = 8,
    api_key_env: str | None = None,
    body: Mapping[str, Any] | None = None,
) -> list[ComponentScore]:
    """What a judge says of each response.

        yes_no    1 and correct, or 0 and wrong, by the problem's reference answer
        score     0 to 10, divided by 10
        pairwise  1 when the response is preferred to the problem's reference response on either side, 0 when never, 0.5 otherwise

    Nothing after the thinking, or more of it than `max_chars`, is not worth asking about: 0.

    Args:
        url: of any OpenAI-compatible server, up to and with /v1; or several that serve the same model; None: the run's own judges
            are asked (judge.path).
        model: what a server at a url is asked for. prompt: instead of ours, with {question}, {answer} and perhaps {reference};
        pairwise: {question}, {response_a} and {response_b}. rubric: what is good, for our prompt. thinking: whether the judge
        sees the reasoning too. max_tokens: of the judge's response, with what it thinks. retries: after the first try; pauses
        between them double from half a second, to 30 s. concurrency: requests at a time, of one reward worker. api_key_env: the
        name of the environment variable that holds the key. body: more fields of the request, as in {chat_template_kwargs:
        {enable_thinking: false}}; null leaves one of ours out.
    """
    if bool(url) != bool(model):
        raise ValueError(
            "a judge's args.url and args.model belong together: its address, and what is asked of it there"
        )
    form, text = KINDS[kind], text_of(KINDS[kind], prompt=prompt, rubric=rubric)
    fields = {"question": question_of(problem)}
    reference = reference_of(problem.payload)
    if reference is not None:
        fields["reference"] = reference
    elif "{reference}" in text or kind == "pairwise":
        raise ValueError(
            f"problem {problem.id} has no reference for its judge; name the sources that have as the part's `sources`"
        )
    asked_G: list[list[str]] = []
    for completion in completions_G:
        response = response_text(problem, completion)
        answer = (response if thinking else after_thinking(response)).strip()
        if not after_thinking(response).strip() or len(answer) > max_chars:
            asked_G.append([])
        elif kind == "pairwise":
            sides = [(answer, str(reference)), (str(reference), answer)]
            asked_G.append([filled(form, text, fields | {"response_a": a, "response_b": b}) for a, b in sides])
        else:
            asked_G.append([filled(form, text, fields | {"answer": answer})])
    endpoint = Endpoint(
        urls=(url,) if isinstance(url, str) else tuple(url or ()),
        model=model,
        temperature=temperature,
        max_tokens=max_tokens,
        timeout_s=timeout_s,
        retries=retries,
        concurrency=concurrency,
        api_key_env=api_key_env,
        body=json.dumps(body or {}, sort_keys=True),
    )
    verdicts = client_of(endpoint).verdicts((message for asked in asked_G for message in asked), form.read)
    return [_score(kind, [verdicts[message] for message in asked]) for asked in asked_G]


def _score(kind: str, verdicts: Sequence[float | None]) -> ComponentScore:
    """Of one response, from what was asked about it: nothing, once, or on either side."""
    said = [verdict for verdict in verdicts if verdict is not None]
    if len(said) < len(verdicts):
        return FAILED
    if kind == "yes_no":
        return correct_or_incorrect(said == [1.0])
    if not said:
        return ComponentScore(value=0.0, status="wrong_answer")
    if kind == "pairwise":
        as_first, as_second = said[0], 1.0 - said[1]
        return ComponentScore(value=(as_first + as_second) / 2)
    return ComponentScore(value=said[0])
