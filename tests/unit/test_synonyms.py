"""Names of other projects lead to r1ray's keys; learning rates have a bound."""

import pytest
from laid_over_defaults import check_values
from omegaconf import DictConfig

from r1ray.check import ConfigError
from r1ray.check.schema import key_paths
from r1ray.check.synonyms import SYNONYMS
from r1ray.config.files import conf_dir, groups_in


def mistake(base: DictConfig, *overrides: str) -> tuple[str, str, str]:
    with pytest.raises(ConfigError) as caught:
        check_values(base, overrides)
    (found,) = caught.value.mistakes
    return found.key, found.rule, found.remedy


def test_every_synonym_leads_to_a_key_and_hides_none() -> None:
    keys = {".".join(path.split(".")[:length]) for path in key_paths() for length in (1, 2, 3)} | set(
        groups_in(conf_dir())
    )
    assert {ours for names in SYNONYMS.values() for ours in names.split(" or ")} <= keys
    assert not SYNONYMS.keys() & keys


@pytest.mark.parametrize(
    ("override", "key", "ours"),
    [
        ("trainer.learning_rate=1e-6", "trainer.learning_rate", "trainer.lr"),
        ("learning_rate=1e-6", "learning_rate", "trainer.lr"),
        ("rollout.n=8", "rollout.n", "algo.group_size"),
        ("actor_rollout_ref.rollout.n=8", "actor_rollout_ref", "algo.group_size"),
        ("actor_rollout_ref.actor={optim: {lr: 1e-6}, kl_loss_coef: 0}", "actor_rollout_ref", "trainer.lr and algo.kl_coef"),
        ("critic.optim.lr=1e-5", "critic.optim", "critic.lr"),
        ("algo.beta=0.04", "algo.beta", "algo.kl_coef"),
        ("algo.num_generations=8", "algo.num_generations", "algo.group_size"),
        ("algo.epsilon=0.2", "algo.epsilon", "algo.clip_low"),
        ("trainer.micro_batch_size=1", "trainer.micro_batch_size", "trainer.max_tokens_per_micro_batch"),
        ("algo.per_device_train_batch_size=1", "algo.per_device_train_batch_size", "trainer.max_tokens_per_micro_batch"),
        ("rollout.max_completion_length=9", "rollout.max_completion_length", "rollout.max_response_length"),
        ("data.max_response_length=9", "data.max_response_length", "rollout.max_response_length"),
        ("algorithm.adv_estimator=grpo", "algorithm", "algo"),
        ("max_steps=3", "max_steps", "steps"),
        ("stages.rl.config.trainer.max_norm=1", "stages.rl.config.trainer.max_norm", "stages.rl.config.trainer.grad_clip"),
        ("rollout.gpu_memory_utilization=0.5", "rollout.gpu_memory_utilization", "rollout.engine_args"),
    ],
)  # fmt: skip
def test_the_name_of_another_project_suggests_ours(base: DictConfig, override: str, key: str, ours: str) -> None:
    found, _, remedy = mistake(base, override)
    assert (found, remedy) == (key, f"did you mean {ours}?")


def test_a_misspelt_key_still_suggests_the_nearest(base: DictConfig) -> None:
    assert mistake(base, "trainer.lrr=1")[2].startswith("did you mean trainer.lr?")


def test_learning_rates_that_destroy_any_model_are_refused(base: DictConfig) -> None:
    key, rule, remedy = mistake(base, "trainer.lr=1e30")
    assert key == "trainer.lr" and "destroys the model" in rule and remedy.startswith("trainer.lr=1e-6")
    assert check_values(base, ["critic.lr=5"]), "there is no critic"
    assert check_values(base, ["trainer.lr=1"])
