"""The arguments of the judge reward, and the check that the other sections fit them. No request is sent here."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from r1ray.config import JudgeConfig
from r1ray.config.base import PositiveInt
from r1ray.mistakes import Finding, Mistake
from r1ray.reward.judge.client import LONGEST_PAUSE_S
from r1ray.reward.judge.http import CONNECT_S
from r1ray.reward.judge.prompts import KINDS, prompt_template, reference_of
from r1ray.reward.judge.server import Endpoint

if TYPE_CHECKING:
    from r1ray.config.view import StageView

URL = re.compile(r"https?://[^/\s@]+(/\S*)?")
VARIABLE = re.compile(r"[A-Za-z_]\w*")


class JudgeArgs(Endpoint):
    kind: Literal["yes_no", "score", "pairwise"] = "yes_no"
    """yes_no    1 and correct, or 0 and incorrect, by the problem's reference answer
    score     0 to 10, divided by 10
    pairwise  1 when the response is preferred to the problem's reference response in both orders, 0 when never, 0.5 otherwise
    """
    prompt: str | None = None
    """Replaces the default prompt; has {question} and {answer}; pairwise: {question}, {response_a} and {response_b}; {reference} is
    optional."""
    rubric: str | None = None
    """What makes a response good; inserted into the default prompt."""
    thinking: bool = False
    """Whether the judge sees the reasoning too."""
    max_chars: PositiveInt = 20_000
    """A longer response earns 0 without a request."""

    @property
    def uses_run_judges(self) -> bool:
        return not self.url

    @property
    def text(self) -> str:
        """The prompt with its rubric; its fields are still to be filled in."""
        return prompt_template(KINDS[self.kind], prompt=self.prompt, rubric=self.rubric)

    def cannot_score(self, payload: Mapping[str, Any]) -> tuple[str, str] | None:
        if (self.kind == "pairwise" or "{reference}" in self.text) and reference_of(payload) is None:
            reason = "the judge compares with a reference, and there is none (reference, answers or answer)"
            return reason, "kind=score, which needs none"
        return None

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        own = not self.url and self.model is None and view.judge.path is not None
        yield from self._fits_own_judges(key, view.judge) if own else self._address(key)
        yield from self._patience(key, view.reward.timeout_s)
        yield from self._prompt_fields(key)
        for name, source in view.eval.sets.items():
            if self.kind != "yes_no" and view.reward.components.get(source.accuracy_component) is owner:
                rule = f"a judge of kind {self.kind} gives points and does not say whether a completion is correct"
                remedy = f"{key}.kind=yes_no, or another component for {name}"
                yield Mistake(
                    key=f"eval.sets.{name}.accuracy_component",
                    value=source.accuracy_component,
                    rule=rule,
                    remedy=remedy,
                )

    def _prompt_fields(self, key: str) -> Iterator[Mistake]:
        fields = [f"{{{field}}}" for field in KINDS[self.kind].fields]
        missing = [field for field in fields if field not in self.text]
        if missing:
            rule = f"has no {' and no '.join(missing)}: the judge would not see what it judges"
            remedy = f"a text with {', '.join(fields)}, or null for ours"
            yield Mistake(key=f"{key}.prompt", value=self.text, rule=rule, remedy=remedy)

    def _address(self, key: str) -> Iterator[Mistake]:
        example = f"{key}.url=http://HOST:8000/v1 of any OpenAI-compatible server; in a run, judge.path=MODEL starts one instead"
        if not self.url:
            yield Mistake(
                key=f"{key}.url", value=None, rule="a judge is called over HTTP, and no address is set", remedy=example
            )
        elif not self.model:
            rule, remedy = "must name the model that the server is asked for", f"{key}.model=NAME, as in its /v1/models"
            yield Mistake(key=f"{key}.model", value=self.model, rule=rule, remedy=remedy)
        for url in self.url:
            if not URL.fullmatch(url):
                rule = "is not an address of the form http://HOST:PORT/v1, without a name or key in it"
                yield Mistake(key=f"{key}.url", value=url.rpartition("@")[2], rule=rule, remedy=example)
        if self.api_key_env is not None and not VARIABLE.fullmatch(self.api_key_env):
            rule = "names an environment variable; the key itself belongs in no configuration"
            remedy = f"export JUDGE_API_KEY=... and {key}.api_key_env=JUDGE_API_KEY"
            yield Mistake(key=f"{key}.api_key_env", value="(not shown)", rule=rule, remedy=remedy)

    def _fits_own_judges(self, key: str, judge: JudgeConfig) -> Iterator[Mistake]:
        left = judge.max_length - self.max_tokens
        if left <= 0:
            rule = f"leaves nothing of judge.max_length={judge.max_length} for the question"
            remedy = f"{key}.max_tokens={judge.max_length // 2}"
            yield Mistake(key=f"{key}.max_tokens", value=self.max_tokens, rule=rule, remedy=remedy)
        elif self.max_chars > left:  # digits and Chinese have a token for each character
            rule = (
                f"a completion of so many characters may be longer than judge.max_length={judge.max_length} minus max_tokens="
                f"{self.max_tokens}; one that the judge cannot read is not trained on, so nothing would stop completions from "
                "growing"
            )
            remedy = (
                f"{key}.max_chars={left} (longer ones earn 0), or judge.max_length={self.max_chars + self.max_tokens}"
            )
            yield Mistake(key=f"{key}.max_chars", value=self.max_chars, rule=rule, remedy=remedy)
        others = sorted(self.body.keys() - {"chat_template_kwargs"})
        if others:
            rule = "the run's own judges take chat_template_kwargs, and no other field of a request"
            remedy = "leave these fields out, or name a server as args.url"
            yield Mistake(key=f"{key}.body", value=others, rule=rule, remedy=remedy)
        if self.api_key_env is not None:
            rule = "the run's own judges need no key"
            yield Mistake(key=f"{key}.api_key_env", value=self.api_key_env, rule=rule, remedy="leave it out")

    def _patience(self, key: str, reward_timeout_s: float) -> Iterator[Mistake]:
        longest = 2 * self.timeout_s + CONNECT_S + LONGEST_PAUSE_S
        if longest > reward_timeout_s:
            rule = (
                f"a request and the pause after it may take {longest:g} s, and a reward worker that finishes nothing within "
                f"reward.timeout_s={reward_timeout_s:g} counts as hung"
            )
            yield Mistake(
                key=f"{key}.timeout_s", value=self.timeout_s, rule=rule, remedy=f"reward.timeout_s={longest:g}"
            )
