"""Which roles share one GPU."""

from r1ray.actors.placement import ResourceNeed, needs_of, roles_on_one_gpu
from r1ray.check import load
from r1ray.cli import compose


def need(role: str, gpus: float, *, num: int = 1, labels: dict[str, str] | None = None) -> ResourceNeed:
    return ResourceNeed(role=role, num=num, cpus=1, gpus=gpus, labels=labels or {})


def roles(*needs: ResourceNeed) -> list[str]:
    return [one.role for one in roles_on_one_gpu(needs)]


def test_roles_of_scale_one_gpu_fit_one_gpu_with_every_algorithm() -> None:
    for algo in ("grpo", "ppo", "prime"):
        cfg = load(compose(["scale=one_gpu", f"algo={algo}"])).config
        wanted = ["rollout", "policy", "reference", "critic", "prm", "judge"]
        assert sorted(roles(*needs_of(cfg, roles=[*wanted, "reward"]))) == sorted(wanted)


def test_engine_and_trainer_share_first_and_other_roles_go_elsewhere() -> None:
    assert roles(need("critic", 0.6), need("reference", 0.2), need("policy", 0.5), need("rollout", 0.5)) == [
        "policy",
        "rollout",
    ]
    assert roles(need("rollout", 0.4), need("policy", 0.4), need("critic", 0.3), need("reference", 0.2)) == [
        "rollout",
        "policy",
        "reference",
    ]


def test_roles_with_whole_several_or_no_gpus_do_not_share() -> None:
    assert roles(need("rollout", 1), need("policy", 1), need("reward", 0)) == []
    assert roles(need("rollout", 0.5, num=4), need("policy", 0.5, num=4)) == []
    assert roles(need("rollout", 0.5)) == []


def test_roles_with_different_labels_do_not_share() -> None:
    assert roles(need("rollout", 0.4, labels={"pool": "a"}), need("policy", 0.4, labels={"pool": "b"})) == []
    assert len(roles(need("rollout", 0.4, labels={"pool": "a"}), need("policy", 0.4, labels={"pool": "a"}))) == 2
