"""Where actors go: placement groups with label selectors, and a plain answer when they cannot fit.

One group per engine (rollout, judge), so that an engine can be lost and placed again alone; one group for all ranks of a
trainer and one for the reference, which start and end together. Reward workers are small and many: one spread group. Those that
share a GPU are one bundle: groups of their own Ray would put on different GPUs, of different nodes where there are several.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from r1ray.config import Config
from r1ray.failures import PlacementError
from r1ray.roles import section_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one worker of a role asks for."""

    role: str
    num: int
    cpus: float
    gpus: float
    labels: Mapping[str, str]

    @property
    def bundle(self) -> dict[str, float]:
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One worker's place."""

    group: PlacementGroup
    bundle_index: int
    need: Need
    node_id: str
    """Where it was placed first."""

    @property
    def strategy(self) -> PlacementGroupSchedulingStrategy:
        return PlacementGroupSchedulingStrategy(
            placement_group=self.group,
            placement_group_bundle_index=self.bundle_index,
            placement_group_capture_child_tasks=True,
        )


def needs_of(cfg: Config, *, roles: Sequence[str]) -> list[Need]:
    """What the roles of a stage ask for, in the order in which they are placed (the largest first)."""
    of = {
        "rollout": (
            cfg.rollout.num_workers,
            cfg.rollout.cpus_per_worker * cfg.rollout.tensor_parallel_size,
            cfg.rollout.gpus_per_worker * cfg.rollout.tensor_parallel_size,
        ),
        "judge": (
            cfg.judge.num_workers,
            cfg.judge.cpus_per_worker * cfg.judge.tensor_parallel_size,
            cfg.judge.gpus_per_worker * cfg.judge.tensor_parallel_size,
        ),
        "policy": (cfg.trainer.num_workers, cfg.trainer.cpus_per_worker, cfg.trainer.gpus_per_worker),
        "critic": (cfg.critic.num_workers, cfg.critic.cpus_per_worker, cfg.critic.gpus_per_worker),
        "prm": (cfg.prm.num_workers, cfg.prm.cpus_per_worker, cfg.prm.gpus_per_worker),
        "reference": (cfg.reference.num_workers, cfg.reference.cpus_per_worker, cfg.reference.gpus_per_worker),
        "reward": (cfg.reward.num_workers, cfg.reward.cpus_per_worker, 0.0),
    }
    needs = [
        Need(role=role, num=of[role][0], cpus=of[role][1], gpus=of[role][2], labels=cfg.cluster.labels.get(role, {}))
        for role in roles
    ]
    return sorted(needs, key=lambda need: -need.gpus)


def sharing(needs: Sequence[Need]) -> list[Need]:
    """The roles that fit one GPU together: engine and trainer first, then whoever still fits; none where less than two do.

    Example: shares of 0.5 for rollout and trainer and 0.2 for the reference: rollout and trainer, and the reference sits elsewhere.
    """
    found: list[Need] = []
    for need in sorted(needs, key=lambda need: need.role not in ("rollout", "policy")):
        total = sum(other.num * other.gpus for other in (*found, need))
        alike = not found or need.labels == found[0].labels
        if 0 < need.gpus < 1 and alike and round(total, 4) <= 1:
            found.append(need)
    return found if len(found) > 1 else []


def place(needs: Sequence[Need], *, timeout_s: float) -> dict[str, list[Slot]]:
    """Reserve everything at once, or raise PlacementError within `timeout_s` and leave nothing reserved."""
    groups: list[tuple[Need, PlacementGroup]] = []
    together = sharing(needs)
    if together:
        total = {
            "CPU": round(sum(need.num * need.cpus for need in together), 4),
            "GPU": round(sum(need.num * need.gpus for need in together), 4),
        }
        one = placement_group([total], bundle_label_selector=[dict(together[0].labels)])
        groups += [(need, one) for need in together]
    for need in needs:
        if need in together:
            continue
        num_groups, bundles = (need.num, 1) if need.role in ("rollout", "judge") else (1, need.num)
        for _ in range(num_groups):
            group = placement_group(
                [need.bundle] * bundles,
                strategy="SPREAD" if need.role == "reward" else "PACK",
                bundle_label_selector=[dict(need.labels) for _ in range(bundles)],
            )
            groups.append((need, group))
    whole = list({group.id: group for _, group in groups}.values())
    _, pending = ray.wait([group.ready() for group in whole], num_returns=len(whole), timeout=timeout_s)
    if pending:
        message = _cannot_fit(needs, timeout_s=timeout_s)
        for group in whole:
            remove_placement_group(group)
        raise PlacementError(message)
    slots: dict[str, list[Slot]] = {need.role: [] for need in needs}
    for need, group in groups:
        nodes = placement_group_table(group)["bundles_to_node_id"]
        indices = [0] * need.num if need in together else sorted(nodes)
        slots[need.role] += [Slot(group=group, bundle_index=i, need=need, node_id=nodes[i]) for i in indices]
    return slots


def node_of(slot: Slot) -> str:
    """Where it is now: the places of a lost node move to another."""
    return placement_group_table(slot.group)["bundles_to_node_id"][slot.bundle_index]


def release(slots: Mapping[str, Sequence[Slot]]) -> None:
    for group in {id(slot.group): slot.group for role in slots.values() for slot in role}.values():
        remove_placement_group(group)


def threads_per_worker(slots: Sequence[Slot], *, override: int | None) -> list[int]:
    """OMP threads for each worker of one role: its node's cores shared among the role's workers there.

    Two engines with two threads each on two cores are five times slower than with one each, so cores are never promised
    twice within a role; roles take turns and do not share.
    """
    if override is not None:
        return [override] * len(slots)
    here = ray.get_runtime_context().get_node_id()
    cores = {node["NodeID"]: max(1, int(node["Resources"].get("CPU", 1))) for node in ray.nodes()}
    # A local Ray may be told of more CPUs than there are; its own node is asked directly.
    cores[here] = len(os.sched_getaffinity(0))
    mates = Counter(slot.node_id for slot in slots)
    return [max(1, cores[slot.node_id] // mates[slot.node_id]) for slot in slots]


def _cannot_fit(needs: Sequence[Need], *, timeout_s: float) -> str:
    lines = [f"The actors do not fit the cluster (waited {timeout_s:.0f} s). Wanted:"]
    for need in needs:
        labels = f" on nodes labelled {dict(need.labels)}" if need.labels else ""
        lines.append(f"  {need.role}: {need.num} x {_amount(need.bundle)}{labels}")
    lines.append("Nodes:")
    free = ray._private.state.available_resources_per_node()  # type: ignore[attr-defined]
    totals: Counter[str] = Counter()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    for node in nodes:
        has = {key: node["Resources"].get(key, 0) for key in ("CPU", "GPU")}
        left = {key: free.get(node["NodeID"], {}).get(key, 0) for key in ("CPU", "GPU")}
        totals.update(has)
        labels = {key: value for key, value in node.get("Labels", {}).items() if not key.startswith("ray.io/")}
        labels |= {key: value for key, value in node.get("Labels", {}).items() if key.startswith("r1ray.io/")}
        lines.append(f"  {node['NodeManagerAddress']}: {_amount(has)}, free {_amount(left)}, labels {labels}")
    lines += _remedies(needs, nodes=nodes, totals=totals)
    return "\n".join(lines)


def _remedies(needs: Sequence[Need], *, nodes: list[dict], totals: Mapping[str, float]) -> list[str]:
    """The override that fits, or what is missing."""
    out = []
    for need in needs:
        if need.labels and not any(need.labels.items() <= node.get("Labels", {}).items() for node in nodes):
            out.append(
                f"No node has the labels {dict(need.labels)}: start one with them or override cluster.labels.{need.role}={{}}"
            )
    for kind in ("GPU", "CPU"):
        wanted = sum(need.num * need.bundle.get(kind, 0) for need in needs)
        if wanted <= totals.get(kind, 0):
            continue
        out.append(f"{wanted:g} {kind}s wanted, {totals.get(kind, 0):g} there.")
        largest = max(needs, key=lambda need: need.num * need.bundle.get(kind, 0))
        others = wanted - largest.num * largest.bundle.get(kind, 0)
        fits = int((totals.get(kind, 0) - others) // largest.bundle[kind])
        if fits >= 1:
            out.append(f"This fits: {largest.role}.num_workers={fits}")
        else:
            per_worker = totals.get(kind, 0) / max(1, sum(need.num for need in needs if need.bundle.get(kind)))
            key = "gpus_per_worker" if kind == "GPU" else "cpus_per_worker"
            roles = [need.role for need in needs if need.bundle.get(kind)]
            if per_worker:
                value = int(per_worker * 100) / 100
                out.append("This fits: " + " ".join(f"{section_of(role)}.{key}={value:g}" for role in roles))
            else:
                out.append(
                    f"No node has a {kind}: device=cpu, or {' '.join(f'{section_of(role)}.{key}=0' for role in roles)}"
                )
    if not out:
        out.append(
            "The total would fit, but not as it is split over nodes or while other jobs hold resources (see free)."
        )
    return out


def _amount(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} {key}" for key, value in resources.items() if value) or "nothing"
