"""Where actors run: placement groups with label selectors, and an error with the remedy when they do not fit.

One group per engine (rollout, judge), so that an engine can be lost and placed again alone. All ranks of a trainer start and end
together, so they are one group, and so are the workers of the reference. Reward workers are small and many: one spread group. Roles
that share a GPU are one bundle: Ray would put separate groups on different GPUs, and on different nodes where there are several.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from r1ray.config import Config
from r1ray.config.run import Role
from r1ray.failures import PlacementError
from r1ray.roles import section_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceNeed:
    """The resources that each of the `num` workers of a role needs."""

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
    """The place of one worker."""

    group: PlacementGroup
    bundle_index: int
    need: ResourceNeed
    node_id: str
    """The node where it was placed first."""

    @property
    def strategy(self) -> PlacementGroupSchedulingStrategy:
        return PlacementGroupSchedulingStrategy(
            placement_group=self.group,
            placement_group_bundle_index=self.bundle_index,
            placement_group_capture_child_tasks=True,
        )


def needs_of(cfg: Config, *, roles: Sequence[str]) -> list[ResourceNeed]:
    """What the roles of a stage need, in the order in which they are placed (the largest first)."""
    needs: list[ResourceNeed] = []
    for role in roles:
        section: Any = getattr(cfg, section_of(role))
        size = section.tensor_parallel_size if role in ("rollout", "judge") else 1
        gpus = 0.0 if role == "reward" else section.gpus_per_worker * size
        labels = cfg.cluster.labels.get(cast(Role, role), {})
        needs.append(
            ResourceNeed(
                role=role, num=section.num_workers, cpus=section.cpus_per_worker * size, gpus=gpus, labels=labels
            )
        )
    return sorted(needs, key=lambda need: -need.gpus)


def roles_on_one_gpu(needs: Sequence[ResourceNeed]) -> list[ResourceNeed]:
    """The roles that fit on one GPU together: engine and trainer first, then each role that still fits. Empty for fewer than two.

    Example: shares of 0.5 for rollout and policy and 0.2 for the reference: rollout and policy; the reference gets another GPU.
    """
    found: list[ResourceNeed] = []
    for need in sorted(needs, key=lambda need: need.role not in ("rollout", "policy")):
        total = sum(other.num * other.gpus for other in (*found, need))
        same_labels = not found or need.labels == found[0].labels
        if 0 < need.gpus < 1 and same_labels and round(total, 4) <= 1:
            found.append(need)
    return found if len(found) > 1 else []


def place(needs: Sequence[ResourceNeed], *, timeout_s: float) -> dict[str, list[Slot]]:
    """{role: its slots}. Reserves all of them, or raises PlacementError after `timeout_s` and reserves none."""
    groups: list[tuple[ResourceNeed, PlacementGroup]] = []
    together = roles_on_one_gpu(needs)
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
    unique = list({group.id: group for _, group in groups}.values())
    _, pending = ray.wait([group.ready() for group in unique], num_returns=len(unique), timeout=timeout_s)
    if pending:
        message = _cannot_fit(needs, timeout_s=timeout_s)
        for group in unique:
            remove_placement_group(group)
        raise PlacementError(message)
    slots: dict[str, list[Slot]] = {need.role: [] for need in needs}
    for need, group in groups:
        nodes = placement_group_table(group)["bundles_to_node_id"]
        indices = [0] * need.num if need in together else sorted(nodes)
        slots[need.role] += [Slot(group=group, bundle_index=i, need=need, node_id=nodes[i]) for i in indices]
    return slots


def node_of(slot: Slot) -> str:
    """The node of the slot now: the slots of a lost node move to another node."""
    return placement_group_table(slot.group)["bundles_to_node_id"][slot.bundle_index]


def release(slots: Mapping[str, Sequence[Slot]]) -> None:
    for group in {id(slot.group): slot.group for role in slots.values() for slot in role}.values():
        remove_placement_group(group)


def threads_per_worker(slots: Sequence[Slot], *, override: int | None) -> list[int]:
    """OMP threads for each worker of one role: the cores of its node, divided by the workers of the role on that node.

    Two engines with two threads each on two cores are five times slower than with one each, so the workers of a role never share a
    core. Roles compute in turn and may use the same cores.
    """
    if override is not None:
        return [override] * len(slots)
    here = ray.get_runtime_context().get_node_id()
    cores = {node["NodeID"]: max(1, int(node["Resources"].get("CPU", 1))) for node in ray.nodes()}
    # A local Ray may be configured with more CPUs than the machine has, so on this node the real cores are counted.
    cores[here] = len(os.sched_getaffinity(0))
    workers = Counter(slot.node_id for slot in slots)
    return [max(1, cores[slot.node_id] // workers[slot.node_id]) for slot in slots]


def _cannot_fit(needs: Sequence[ResourceNeed], *, timeout_s: float) -> str:
    lines = [f"The actors do not fit the cluster (waited {timeout_s:.0f} s: cluster.placement_timeout_s). They need:"]
    for need in needs:
        labels = f" on nodes labelled {dict(need.labels)}" if need.labels else ""
        lines.append(f"  {need.role}: {need.num} x {_amount(need.bundle)}{labels}")
    lines.append("The nodes have:")
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


def _remedies(needs: Sequence[ResourceNeed], *, nodes: list[dict], totals: Mapping[str, float]) -> list[str]:
    """One line per resource that is missing: how much, and the override that fits."""
    out = []
    for need in needs:
        if need.labels and not any(need.labels.items() <= node.get("Labels", {}).items() for node in nodes):
            out.append(
                f"No node has the labels {dict(need.labels)}: start one that has them, or set cluster.labels.{need.role}={{}}"
            )
    for kind in ("GPU", "CPU"):
        wanted = sum(need.num * need.bundle.get(kind, 0) for need in needs)
        if wanted <= totals.get(kind, 0):
            continue
        out.append(f"The actors need {wanted:g} {kind}s, the cluster has {totals.get(kind, 0):g}.")
        largest = max(needs, key=lambda need: need.num * need.bundle.get(kind, 0))
        others = wanted - largest.num * largest.bundle.get(kind, 0)
        fits = int((totals.get(kind, 0) - others) // largest.bundle[kind])
        if fits >= 1:
            out.append(f"This fits: {section_of(largest.role)}.num_workers={fits}")
        else:
            per_worker = totals.get(kind, 0) / max(1, sum(need.num for need in needs if need.bundle.get(kind)))
            key = "gpus_per_worker" if kind == "GPU" else "cpus_per_worker"
            roles = [need.role for need in needs if need.bundle.get(kind)]
            if per_worker:
                value = int(per_worker * 100) / 100
                out.append("This fits: " + " ".join(f"{section_of(role)}.{key}={value:g}" for role in roles))
            else:
                out.append(
                    f"No node has a {kind}: set device=cpu, or {' '.join(f'{section_of(role)}.{key}=0' for role in roles)}"
                )
    if not out:
        out.append(
            "The total would fit, but not in the way it is split over the nodes, or not while other jobs hold resources (see the "
            "amounts marked free)."
        )
    return out


def _amount(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} {key}" for key, value in resources.items() if value) or "nothing"
