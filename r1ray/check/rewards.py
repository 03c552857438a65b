"""What rewards need: payloads of problems that they can score, and judges that the run starts itself (judge.*). None is asked."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from pydantic import ValidationError

from r1ray.check.devices import divides
from r1ray.config import ModelConfig, RewardComponentConfig, SourceConfig
from r1ray.config.view import StageView
from r1ray.data.base import Item
from r1ray.data.sources import load_source, needs_network
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake
from r1ray.model.properties import has_chat_template, missing_files, properties_of
from r1ray.plugin import args_of, resolve_or_none
from r1ray.reward import REWARDS
from r1ray.reward.base import RewardArgs
from r1ray.reward.forms import as_reward
from r1ray.reward.trl import TrlReward


def payloads(view: StageView) -> Iterator[Finding]:
    """Examines the first row of each source that is on this disk or generated."""
    named = {**(view.data.train if view.kind.trains else {}), **view.eval.sets}
    for key, component in view.reward.components.items():
        cannot_score = _needs(key, component)
        if cannot_score is None:
            continue
        wanted = [name for name in (named if component.sources is None else component.sources) if name in named]
        for name in wanted:
            item = _first_item(name, named[name])
            if item is not None and (reason := cannot_score(item)):
                others = ",".join(other for other in wanted if other != name) or "NAME"
                where = f"reward.components.{key}.sources"
                rule = f"cannot score {name}'s problems: {reason[0]}"
                yield Mistake(key=where, value=wanted, rule=rule, remedy=f"{where}=[{others}], or {reason[1]}")


def _needs(key: str, component: RewardComponentConfig) -> Callable[[Item], tuple[str, str] | None] | None:
    """The function of a component that says why it cannot score a problem; None when it can score any."""
    plugin = resolve_or_none(component.name or key, REWARDS)
    with suppress(ValueError):  # reported by plugins.rewards
        if callable(plugin) and isinstance(adapted := as_reward(plugin), TrlReward):
            return adapted.cannot_score
    args = _args(key, component)
    return None if args is None or args.cannot_score({}) is None else lambda item: args.cannot_score(item.payload)


def _first_item(name: str, source: SourceConfig) -> Item | None:
    """None where there are no problems to score, or they cannot be read here."""
    try:
        items = () if needs_network(source) else load_source(name, source, head=1).items
    except (TypeError, ValueError):
        return None  # reported for the source itself
    return items[0] if items and items[0].response is None else None


def own_judges(view: StageView) -> Iterator[Finding]:
    """A model that can be asked, and engines that can hold it."""
    judge = view.judge
    if judge.path is None:
        return
    args_of_all = [_args(key, component) for key, component in view.reward.components.items()]
    if not any(args is None or args.uses_run_judges for args in args_of_all):
        rule = "no reward asks these judges"
        remedy = "judge.path=null, or a reward that asks them: conf/reward/judge.yaml shows how"
        yield view.mistake("judge.path", rule, remedy)
    model = ModelConfig(path=judge.path, template="chat", properties=None, lora=None)
    properties, findings = properties_of(model)
    for missing in has_chat_template(model):
        rule, remedy = f"{missing.rule}, and a judge is asked in chat messages", "a chat (instruct) model"
        yield view.mistake("judge.path", rule, remedy)
    for finding in (*findings, *missing_files(model)):
        if isinstance(finding, Mistake):
            yield replace(finding, key="judge.path")
        else:  # on the hub
            yield f"{NOT_CHECKED}judge.path={judge.path} is a hub name: its context length and heads are unknown until it is loaded"
    if properties is not None and judge.max_length > properties.context_length:
        rule = f"the model's context is {properties.context_length} tokens"
        remedy = f"judge.max_length={properties.context_length}"
        yield view.mistake("judge.max_length", rule, remedy)
    if properties is not None:
        yield from divides("judge.tensor_parallel_size", judge.tensor_parallel_size, properties)


def _args(key: str, component: RewardComponentConfig) -> RewardArgs | None:
    """None when they are invalid, which plugins.rewards reports."""
    try:
        args = args_of(resolve_or_none(component.name or key, REWARDS)).model_validate(component.args)
    except ValidationError:
        return None
    return args if isinstance(args, RewardArgs) else RewardArgs()
