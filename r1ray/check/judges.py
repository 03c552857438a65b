"""The judges that the run starts itself (judge.*): a model that can be asked, and engines that can hold it. No judge is asked."""

from collections.abc import Iterator
from dataclasses import replace

from pydantic import ValidationError

from r1ray.check.devices import divides
from r1ray.check.model import facts_of, files, has_chat_template
from r1ray.config import ModelConfig, RewardComponentConfig
from r1ray.config.view import StageView
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake
from r1ray.plugin import args_of, found
from r1ray.reward import REWARDS
from r1ray.reward.base import RewardArgs


def engines(view: StageView) -> Iterator[Finding]:
    judge = view.judge
    if judge.path is None:
        return
    if not any(_asks_own_judges(name, component) for name, component in view.reward.components.items()):
        rule = "no reward asks these judges"
        remedy = "judge.path=null, or a reward that asks them: conf/reward/judge.yaml shows how"
        yield view.mistake("judge.path", rule, remedy)
    model = ModelConfig(path=judge.path, template="chat", facts=None, lora=None)
    facts, findings = facts_of(model)
    for missing in has_chat_template(model):
        rule, remedy = f"{missing.rule}, and a judge is asked in chat messages", "a chat (instruct) model"
        yield view.mistake("judge.path", rule, remedy)
    for finding in (*findings, *files(model)):
        if isinstance(finding, Mistake):
            yield replace(finding, key="judge.path")
        else:  # on the hub
            yield f"{NOT_CHECKED}judge.path={judge.path} is a hub name: its context length and heads are unknown until it is loaded"
    if facts is not None and judge.max_length > facts.context_length:
        rule = f"the model's context is {facts.context_length} tokens"
        remedy = f"judge.max_length={facts.context_length}"
        yield view.mistake("judge.max_length", rule, remedy)
    if facts is not None:
        yield from divides("judge.tensor_parallel_size", judge.tensor_parallel_size, facts)


def _asks_own_judges(name: str, component: RewardComponentConfig) -> bool:
    reward = found(component.name or name, REWARDS)
    try:
        args = args_of(reward).model_validate(component.args)
    except ValidationError:
        return True  # reported by plugins.rewards
    return isinstance(args, RewardArgs) and args.asks_own_judges
