"""LLM judges: can they be asked, and is there what they are to compare with? No judge is asked here."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from r1ray.check.devices import divides
from r1ray.check.model import facts_of, files, has_chat_template
from r1ray.config import (
    JudgeConfig,
    ModelConfig,
    RewardComponentConfig,
    RewardConfig,
    SourceConfig,
)
from r1ray.config.view import StageView
from r1ray.data.schemas import as_list
from r1ray.data.sources import load_source, needs_network
from r1ray.mistakes import NOT_CHECKED, Mistake, did_you_mean
from r1ray.reward.judge import MAX_CHARS, MAX_TOKENS
from r1ray.reward.judge.client import LONGEST_PAUSE_S
from r1ray.reward.judge.http import CONNECT_S
from r1ray.reward.judge.prompts import KINDS, reference_of, text_of

URL = re.compile(r"https?://[^/\s@]+(/\S*)?")
VARIABLE = re.compile(r"[A-Za-z_]\w*")
NUMBERS: Mapping[str, tuple[type | tuple[type, ...], float, str]] = {
    "temperature": ((int, float), 0, "a number, at least 0"),
    "max_tokens": (int, 1, "a whole number, at least 1"),
    "max_chars": (int, 1, "a whole number, at least 1"),
    "timeout_s": ((int, float), 0.1, "a number, at least 0.1"),
    "retries": (int, 0, "a whole number, at least 0"),
    "concurrency": (int, 1, "a whole number, at least 1"),
}


def judges(view: StageView) -> Iterator[Mistake]:
    reward, judge, data, eval = view.reward, view.judge, view.data, view.eval
    for name, component in _components(reward):
        key = f"reward.components.{name}"
        if component.args.get("url") is None and component.args.get("model") is None and judge.path is not None:
            yield from _of_ours(f"{key}.args", component.args, judge)
        else:
            yield from _address(f"{key}.args", component.args)
        yield from _numbers(f"{key}.args", component.args, reward)
        asked = component.args.get("kind", "yes_no")
        if asked not in KINDS:
            rule = "is no kind of judge"
            yield Mistake(key=f"{key}.args.kind", value=asked, rule=rule, remedy=did_you_mean(str(asked), KINDS))
            continue
        for source in (source for source, cfg in eval.sets.items() if cfg.accuracy == name and asked != "yes_no"):
            rule = f"a judge of kind {asked} gives points and does not say whether a completion is correct"
            remedy = f"{key}.args.kind=yes_no, or another component for {source}"
            yield Mistake(key=f"eval.sets.{source}.accuracy", value=name, rule=rule, remedy=remedy)
        prompt = text_of(KINDS[asked], prompt=component.args.get("prompt"), rubric=None)
        missing = [f"{{{field}}}" for field in KINDS[asked].fields if f"{{{field}}}" not in prompt]
        if missing:
            rule = f"has no {' and no '.join(missing)}: the judge would not see what it judges"
            remedy = f"a text with {', '.join(f'{{{field}}}' for field in KINDS[asked].fields)}, or null for ours"
            yield Mistake(key=f"{key}.args.prompt", value=prompt, rule=rule, remedy=remedy)
        elif asked == "pairwise" or "{reference}" in prompt:
            named = {**(data.train if view.kind.trains else {}), **eval.sets}
            wanted = (
                named
                if component.sources is None
                else {name: named[name] for name in component.sources if name in named}
            )
            yield from _references(f"{key}.sources", wanted)


def with_address(view: StageView) -> Iterator[Mistake]:
    """For tools that start no judges."""
    reward = view.reward
    for name, component in _components(reward):
        yield from _address(f"reward.components.{name}.args", component.args)


def engines(view: StageView) -> Iterator[Mistake | str]:
    """The judges that the run starts itself: a model that can be asked, and engines that can hold it."""
    judge, reward = view.judge, view.reward
    if judge.path is None:
        return
    if not any(component.args.get("url") is None for _, component in _components(reward)):
        rule = "no reward asks these judges"
        remedy = "reward.components.NAME={name: judge}, without args.url, or judge.path=null"
        yield Mistake(key="judge.path", value=judge.path, rule=rule, remedy=remedy)
    model = ModelConfig(path=judge.path, template="chat", facts=None, lora=None)
    facts, findings = facts_of(model)
    for missing in has_chat_template(model):
        rule, remedy = f"{missing.rule}, and a judge is asked in chat messages", "a chat (instruct) model"
        yield Mistake(key="judge.path", value=judge.path, rule=rule, remedy=remedy)
    for finding in (*findings, *files(model)):
        if isinstance(finding, Mistake):
            yield replace(finding, key="judge.path")
        else:  # on the hub
            yield f"{NOT_CHECKED}judge.path={judge.path} is a hub name: its context length and heads are unknown until it is loaded"
    if facts is not None and judge.max_length > facts.context_length:
        rule = f"the model's context is {facts.context_length} tokens"
        remedy = f"judge.max_length={facts.context_length}"
        yield Mistake(key="judge.max_length", value=judge.max_length, rule=rule, remedy=remedy)
    if facts is not None:
        yield from divides("judge.tensor_parallel_size", judge.tensor_parallel_size, facts)


def _components(reward: RewardConfig) -> list[tuple[str, RewardComponentConfig]]:
    return [(name, component) for name, component in reward.components.items() if (component.name or name) == "judge"]


def _of_ours(key: str, args: Mapping[str, Any], judge: JudgeConfig) -> Iterator[Mistake]:
    room = args.get("max_tokens", MAX_TOKENS)
    if isinstance(room, int) and room >= judge.max_length:
        rule = f"leaves nothing of judge.max_length={judge.max_length} for the question"
        yield Mistake(
            key=f"{key}.max_tokens", value=room, rule=rule, remedy=f"{key}.max_tokens={judge.max_length // 2}"
        )
    elif isinstance(room, int):
        most, left = args.get("max_chars", MAX_CHARS), judge.max_length - room
        if isinstance(most, int) and most > left:  # as long as digits and Chinese are: a token a character
            rule = (
                f"a completion of so many characters may not fit judge.max_length={judge.max_length} less max_tokens={room}, and "
                "what its judge cannot read is not trained on: completions could grow out of its reach"
            )
            remedy = f"{key}.max_chars={left} (longer ones earn 0), or judge.max_length={most + room}"
            yield Mistake(key=f"{key}.max_chars", value=most, rule=rule, remedy=remedy)
    body: Mapping[str, Any] = args.get("body") or {}
    others = sorted(body.keys() - {"chat_template_kwargs"})
    if others:
        rule = "judges of the run's own take chat_template_kwargs, and no other field of a request"
        yield Mistake(
            key=f"{key}.body", value=others, rule=rule, remedy="leave these fields out, or name a server as args.url"
        )
    if args.get("api_key_env") is not None:
        rule = "judges of the run's own need no key"
        yield Mistake(key=f"{key}.api_key_env", value=args["api_key_env"], rule=rule, remedy="leave it out")


def _address(key: str, args: Mapping[str, Any]) -> Iterator[Mistake]:
    urls = as_list(args.get("url")) or [args.get("url")]
    example = (
        f"{key}.url=http://HOST:8000/v1 of any OpenAI-compatible server; in a run, judge.path=MODEL starts one instead"
    )
    for url in urls:
        if url is None:
            rule = "a judge is asked over HTTP, and there is no address"
            yield Mistake(key=f"{key}.url", value=None, rule=rule, remedy=example)
        elif not URL.fullmatch(str(url)):
            rule = "is not an address of the form http://HOST:PORT/v1, without a name or key in it"
            yield Mistake(key=f"{key}.url", value=str(url).rpartition("@")[2], rule=rule, remedy=example)
    if not args.get("model") and args.get("url") is not None:
        rule, remedy = "must name the model that the server is asked for", f"{key}.model=NAME, as in its /v1/models"
        yield Mistake(key=f"{key}.model", value=args.get("model"), rule=rule, remedy=remedy)
    variable = args.get("api_key_env")
    if variable is not None and not VARIABLE.fullmatch(str(variable)):
        rule = "names an environment variable; the key itself belongs in no configuration"
        remedy = f"export JUDGE_API_KEY=... and {key}.api_key_env=JUDGE_API_KEY"
        yield Mistake(key=f"{key}.api_key_env", value="(not shown)", rule=rule, remedy=remedy)


def _numbers(key: str, args: Mapping[str, Any], reward: RewardConfig) -> Iterator[Mistake]:
    for name, (types, least, words) in NUMBERS.items():
        value = args.get(name, least)
        if isinstance(value, bool) or not isinstance(value, types) or not value >= least:
            yield Mistake(key=f"{key}.{name}", value=value, rule=f"must be {words}", remedy=f"leave {key}.{name} out")
    timeout_s = args.get("timeout_s", 60.0)
    if isinstance(timeout_s, int | float) and 2 * timeout_s + CONNECT_S + LONGEST_PAUSE_S > reward.timeout_s:
        longest = 2 * timeout_s + CONNECT_S + LONGEST_PAUSE_S
        rule = (
            f"a request and the pause after it may take {longest:g} s, and after reward.timeout_s={reward.timeout_s:g} in "
            "which nothing ends a reward worker counts as hung"
        )
        yield Mistake(key=f"{key}.timeout_s", value=timeout_s, rule=rule, remedy=f"reward.timeout_s={longest:g}")


def _references(key: str, sources: Mapping[str, SourceConfig]) -> Iterator[Mistake]:
    """Of what is on this disk or generated, the first row."""
    for name, source in sources.items():
        try:
            items = () if needs_network(source) else load_source(name, source, head=1).items
        except (TypeError, ValueError):
            continue  # said of the dataset itself
        if items and items[0].response is None and reference_of(items[0].payload) is None:
            rule = (
                f"the judge compares with a reference, and {name}'s problems have none (reference, answers or answer)"
            )
            others = [other for other in sources if other != name]
            remedy = (
                f"{key}={others or '[NAME]'}".replace("'", "") + ", sources that have, or kind=score, which needs none"
            )
            yield Mistake(key=key, value=sorted(sources), rule=rule, remedy=remedy)
