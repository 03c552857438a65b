"""Which roles are put on one GPU together."""

from r1ray.actors.placement import Need, needs_of, sharing
from r1ray.check import load
from r1ray.cli import compose


def need(role: str, gpus: float, *, num: int = 1, labels: dict[str, str] | None = None) -> Need:
    return Need(role=role, num=num, cpus=1, gpus=gpus, labels=labels or {})


def roles(*needs: Need) -> list[str]:
    return [one.role for one in sharing(needs)]


def test_all_roles_of_scale_one_gpu_fit_one_gpu_with_every_algorithm() -> None:
    for algo in ("grpo", "ppo", "prime"):
        cfg = load(compose(["scale=one_gpu", f"algo={algo}"])).config
        wanted = ["rollout", "policy", "reference", "critic", "prm", "judge"]
        assert sorted(roles(*needs_of(cfg, roles=[*wanted, "reward"]))) == sorted(wanted)


def test_engine_and_trainer_come_first_and_who_no_longer_fits_sits_elsewhere() -> None:
    assert roles(need("critic", 0.6), need("reference", 0.2), need("policy", 0.5), need("rollout", 0.5)) == [
        "policy",
        "rollout",
    ]
    assert roles(need("rollout", 0.4), need("policy", 0.4), need("critic", 0.3), need("reference", 0.2)) == [
        "rollout",
        "policy",
        "reference",
    ]


def test_whole_gpus_none_and_several_gpus_are_not_shared() -> None:
    assert roles(need("rollout", 1), need("policy", 1), need("reward", 0)) == []
    assert roles(need("rollout", 0.5, num=4), need("policy", 0.5, num=4)) == []
    assert roles(need("rollout", 0.5)) == []


def test_roles_for_different_nodes_are_not_put_together() -> None:
    assert roles(need("rollout", 0.4, labels={"pool": "a"}), need("policy", 0.4, labels={"pool": "b"})) == []
    assert len(roles(need("rollout", 0.4, labels={"pool": "a"}), need("policy", 0.4, labels={"pool": "a"}))) == 2
