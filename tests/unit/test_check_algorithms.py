"""The check of `algo`: invalid combinations are refused with the remedy before anything starts."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from laid_over_defaults import check_values, with_algorithm
from omegaconf import DictConfig

from r1ray.check import NOT_CHECKED, CheckedRun, ConfigError

OWN = """
from dataclasses import dataclass
from r1ray.algo.grpo import Grpo
from r1ray.algo.policy import GroupArgs

class MineArgs(GroupArgs):
    strength: float

@dataclass(frozen=True, kw_only=True)
class Mine(Grpo):
    Args = MineArgs

class Wrapped:
    def __init__(self, cfg, args, max_response_length):
        self._own = Grpo(cfg=cfg, max_response_length=max_response_length)
    def __getattr__(self, name):
        return getattr(self._own, name)

def nothing(cfg, args, max_response_length): ...

def breaks(cfg, args, max_response_length):
    raise KeyError("no such thing")

THING = 7

class Bare:
    def __init__(self, cfg, args, max_response_length): ...
"""


COUNTING = """
MADE = []

@dataclass(frozen=True, kw_only=True)
class Counting(Grpo):
    def __post_init__(self):
        MADE.append(self)
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_algo.py").write_text(OWN)


def check(base: DictConfig, overrides: Sequence[str], *, algo: str = "grpo") -> CheckedRun:
    """The default configuration with `overrides`; `algo` as on the command line."""
    return check_values(with_algorithm(base, algo), overrides)


FILTER = "algo.filter.min_solve_rate=0", "algo.filter.max_solve_rate=1"
# algorithm, overrides, key of the mistake, words of its rule, words of its remedy
CASES = {
    "an algorithm that lacks a method": (
        "grpo", ["algo.name='own_algo:Bare'"], "algo.name",
        "has no advantages, frozen_steps, initial_state, keep, loss, minibatches, needs, needs_entropy_grad, objectives",
        "derive it",
    ),
    "what makes no algorithm": ("grpo", ["algo.name='own_algo:nothing'"], "algo.name", "has no advantages,", "derive it from"),
    "an algorithm that cannot be made": (
        "grpo", ["algo.name='own_algo:breaks'"], "algo.name", "cannot be made: KeyError: 'no such thing'", "correct it",
    ),
    "what cannot be called": ("grpo", ["algo.name='own_algo:THING'"], "algo.name", "is 7, which cannot be called", "name a class"),
    "a policy that is frozen to the end": (
        "vc_ppo", ["steps=50"], "algo.args.policy_frozen_steps", "the policy would be frozen in all of steps=",
        "policy_frozen_steps=12, or more steps",
    ),
    "a reference that leaves its process rewards": (
        "prime", ["algo.reference_refresh_updates=400"], "algo.reference_refresh_updates", "must not change", "updates=0",
    ),
    "a critic where there is none": ("grpo", ["critic.path=builtin"], "critic.path", "has no such trainer", "critic.path=null"),
    "a critic's rank count said twice": (
        "ppo", ["critic.overrides={num_workers: 2}"], "critic.overrides.num_workers", "must be set as critic.num_workers",
        "critic.num_workers=2",
    ),
    "a critic's key that is none": (
        "ppo", ["critic.overrides={zero_stag: 3}"], "critic.overrides.zero_stag", "takes no such argument", "zero_stage",
    ),
    "a critic's key of a wrong value": (
        "ppo", ["critic.overrides={zero_stage: 7}"], "critic.overrides.zero_stage", "must be one of 0, 1, 2, 3", "zero_stage=0",
    ),
    "a critic of one rank whose rows two share": (
        "ppo", ["trainer.sequence_parallel=2", "critic.num_workers=1"], "critic.num_workers",
        "critic.overrides.sequence_parallel=2 ranks share each row", "=2, or critic.overrides.sequence_parallel=1",
    ),
    "a critic's heads that ranks cannot split": (
        "ppo", ["critic.num_workers=3", "critic.overrides={sequence_parallel: 3}"], "critic.overrides.sequence_parallel",
        "4 attention heads", "(possible: 1, 2, 4)",
    ),
    "a critic's ranks that share rows, and no number": (
        "ppo", ["critic.overrides={sequence_parallel: x}"], "critic.overrides.sequence_parallel",
        "must be a whole number, not text", "give a whole number",
    ),
    "a reference without a GPU for process rewards": (
        "prime", ["device=cuda", "rollout.gpus_per_worker=1", "trainer.gpus_per_worker=1", "prm.gpus_per_worker=1"],
        "reference.gpus_per_worker", "needs a GPU", "reference.gpus_per_worker=1",
    ),
    "group of one": ("grpo", ["algo.group_size=1"], "algo.group_size", "grpo compares", "algo.group_size=8"),
    "dynamic sampling with a group of one": (
        "grpo", ["algo.group_size=1", *FILTER], "algo.group_size", "algo.filter.min_solve_rate selects groups", "drop_equal: false",
    ),
    "rewards that differ in a group of one": (
        "grpo", ["algo.group_size=1", "algo.filter.drop_equal=true"], "algo.group_size", "algo.filter.drop_equal selects",
        "group_size=8",
    ),
    "own algorithm that compares, with a group of one": (
        "grpo", ["algo.name='own_algo:Mine'", "algo.args.strength=1", "algo.group_size=1"], "algo.group_size", "compares", "=8",
    ),
    "bounds the wrong way round": (
        "grpo", ["algo.filter.min_solve_rate=0.9", "algo.filter.max_solve_rate=0.1"], "algo.filter.min_solve_rate",
        "less than algo.filter.max_solve_rate = 0.1", "algo.filter.min_solve_rate=0 ",
    ),
    "bounds that are equal": (
        "grpo", ["algo.filter.min_solve_rate=0", "algo.filter.max_solve_rate=0"], "algo.filter.min_solve_rate", "less than",
        "open side",
    ),
    "bounds that no group meets": (
        "grpo", ["algo.filter.min_solve_rate=0.5", "algo.filter.max_solve_rate=0.6"], "algo.filter.min_solve_rate",
        "has a solve rate between 0.5 and 0.6", "group_size",
    ),
    "a bound that is no share": (
        "grpo", ["algo.filter.min_solve_rate=-1"], "algo.filter.min_solve_rate", "at least 0",
        "give 0 or a positive number",
    ),
    "dual clip below one": ("grpo", ["algo.dual_clip=0.5"], "algo.dual_clip", "must be greater than 1", "give a larger value"),
    "a target for no KL": (
        "grpo", ["algo.kl_coef=0", "algo.kl_target=0.1"], "algo.kl_target", "would stay there", "algo.kl_coef=0.001",
    ),
    "KL in no place": ("grpo", ["algo.kl_in=rewards"], "algo.kl_in", "one of loss, reward", "did you mean reward?"),
    "an entropy coefficient above its maximum": (
        "grpo", ["algo.entropy_target=0.2", "algo.entropy_coef=0.01"], "algo.entropy_coef_max", "starts at 0.01", "coef_max=0.005",
    ),
    "an entropy coefficient that cannot move": (
        "grpo", ["algo.entropy_target=0.2", "algo.entropy_coef_max=0"], "algo.entropy_coef_max", "needs room", "target=null",
    ),
    "a cap that cuts everything": (
        "grpo", ["algo.importance_sampling=token_mask", "algo.is_cap=0.5"], "algo.is_cap", "must be at least 1",
        "algo.is_cap=1",
    ),
    "a correction of no kind": (
        "grpo", ["algo.importance_sampling=truncate"], "algo.importance_sampling", "token_truncate", "did you mean token_truncate?",
    ),
    "a floor that nothing reads": ("grpo", ["algo.is_floor=0.5"], "algo.is_floor", "is not read", "algo.importance_sampling="),
    "a bound that nothing reads": ("grpo", ["algo.rejection.high=1"], "algo.rejection.high", "is not read", "by=mean_k3"),
    "a rejection without bounds": ("grpo", ["algo.rejection.by=sum_k1"], "algo.rejection.by", "no sequence", "by=none"),
    "a rejection of everything": (
        "grpo", ["algo.rejection={by: mean_k1, low: 1, high: 0.5}"], "algo.rejection.low", "every sequence", "low=-0.5",
    ),
    "a rejection by a negative k3": (
        "grpo", ["algo.rejection={by: mean_k3, high: -1}"], "algo.rejection.high", "at least 0", "high=0.01",
    ),
    "an argument of another algorithm": ("grpo", ["algo.args.gamma=1"], "algo.args.gamma", "grpo takes no such", "there are none"),
    "a correction of gamma's name": (
        "reinforce_pp", ["algo.args.gama=1"], "algo.args.gama", "takes no such argument", "did you mean algo.args.gamma?",
    ),
    "a gamma that is no discount": (
        "reinforce_pp", ["algo.args.gamma=2"], "algo.args.gamma", "must be at most 1", "algo.args.gamma=1",
    ),
    "an alpha of no kind": (
        "gpg", ["algo.args.alpha=papr"], "algo.args.alpha", "must be one of paper, verl", "did you mean paper?",
    ),
    "leave one out of one": ("rloo", ["algo.group_size=1"], "algo.group_size", "rloo compares", "algo=reinforce_pp"),
    "a group's mean of one": ("reinforce_pp_baseline", ["algo.group_size=1"], "algo.group_size", "compares", "algo=reinforce_pp"),
    "DAPO with a group of one": (
        "dapo", ["algo.group_size=1"], "algo.group_size", "algo.filter.min_solve_rate selects", "max_solve_rate: null",
    ),
    "own algorithm's argument that is missing": (
        "grpo", ["algo.name='own_algo:Mine'"], "algo.args.strength", "needs this argument", "algo.args.strength=VALUE",
    ),
    "own algorithm's argument that is misspelt": (
        "grpo", ["algo.name='own_algo:Mine'", "algo.args={strength: 1, strenght: 2}"], "algo.args.strenght", "takes no such",
        "did you mean algo.args.strength?",
    ),
    "own algorithm's argument of another type": (
        "grpo", ["algo.name='own_algo:Mine'", "algo.args.strength=much"], "algo.args.strength",
        "must be a number, not text", "give a number",
    ),
    "own algorithm that is not there": (
        "grpo", ["algo.name='own_algo:Yours'"], "algo.name", "has no attribute 'Yours'", "PYTHONPATH",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=CASES)
def test_invalid_combinations_are_refused(case: str, base: DictConfig) -> None:
    algo, overrides, key, rule, remedy = CASES[case]
    with pytest.raises(ConfigError) as caught:
        check(base, overrides, algo=algo)
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert rule in mistake.rule
    assert remedy in mistake.remedy


@pytest.mark.parametrize(
    "overrides",
    [
        [*FILTER, "algo.filter.min_share=0"],
        ["algo.filter.min_solve_rate=0.5", "algo.filter.max_solve_rate=0.7"],  # 5 of 8
        ["algo.filter.min_solve_rate=0.9"],
        ["algo.kl_in=reward", "algo.kl_target=0.1"],
        ["algo.name=reinforce_pp", "algo.args.gamma=1", "algo.group_size=1"],
        ["algo.entropy_target=0.2"],
        ["algo.importance_sampling=sequence_mask"],
        ["algo.name='own_algo:Mine'", "algo.args.strength=1"],
        ["algo.name='own_algo:Wrapped'"],
    ],
    ids=" ".join,
)
def test_valid_combinations_are_accepted(overrides: list[str], base: DictConfig) -> None:
    assert check(base, overrides).stages


@pytest.mark.parametrize(
    ("algo", "overrides", "words"),
    [
        ("gspo", ["algo.aggregation=token_mean"], "completions are weighted by their length"),
        ("gspo", [], None),
        ("dapo", [], None),
        ("gpg", ["algo.num_minibatches=2"], "all but the first update of a step are off-policy"),
        ("gpg", [], None),
        ("orz", ["critic.num_workers=60"], "an update of the critic has 42 samples for 60 ranks"),
        ("orz", ["critic.num_workers=40"], None),
        ("prime", ["algo.args.prm_updates=512", "prm.num_workers=2"], "an update of the prm has 1 samples for 2 ranks"),
        ("grpo", ["critic.num_workers=600"], None),
    ],
)
def test_surprising_settings_are_noted(algo: str, overrides: list[str], words: str | None, base: DictConfig) -> None:
    found = [note for note in check(base, overrides, algo=algo).notes if not note.startswith(NOT_CHECKED)]
    assert [words in note for note in found] == [True] if words else found == []


def test_algorithm_is_constructed_once(base: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "counting_algo.py").write_text(f"{OWN}{COUNTING}")
    check(base, ["algo.name='counting_algo:Counting'"])
    assert len(importlib.import_module("counting_algo").MADE) == 1


def test_own_algorithms_are_not_checked_without_torch(base: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Your own algorithms may import torch, built-in ones do not."""
    Path("algo_with_torch.py").write_text("import torch\n" + OWN)
    monkeypatch.setitem(sys.modules, "torch", None)
    (note,) = check(base, ["algo.name='algo_with_torch:Mine'"]).notes
    assert note.startswith(NOT_CHECKED) and "algo_with_torch:Mine" in note
