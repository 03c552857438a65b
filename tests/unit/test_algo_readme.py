"""r1ray/algo/README.md compared with code and options. `python tests/unit/test_algo_readme.py` rewrites its table."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from algo_samples import CONF, algo_config

import r1ray.algo
from r1ray.config import AlgoConfig

README = Path(r1ray.algo.__file__).with_name("README.md")
COLUMNS = (
    "algo=",
    "code",
    "needs",
    "advantage",
    "objective",
    "weights",
    "clip",
    "KL",
    "entropy",
    "filter",
    "updates a step",
)
WEIGHTS = {
    "seq_mean_token_mean": "1 / (N T_i)",
    "token_mean": "1 / all tokens",
    "seq_mean_token_sum": "1 / N",
    "seq_mean_token_sum_norm": "1 / (N limit)",
}


def table() -> str:
    rows = [row(path.stem) for path in sorted((CONF / "algo").glob("*.yaml"))]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def row(option: str) -> tuple[str, ...]:
    cfg = algo_config(option)
    algo = r1ray.algo.make(cfg, max_response_length=8)
    cls = type(algo)
    needs = [*sorted(algo.needs), *(["entropy gradient"] if algo.needs_entropy_grad else [])]
    objective = first_line(cls._surrogate)
    args = "".join(f", {name} {value}" for name, value in algo.args.model_dump().items())
    return (
        f"`{option}`",
        f"`{cfg.name}`: {cls.__name__}{args}",
        ", ".join(needs) or "none",
        first_line(cls._advantages).replace(" / group std", f" / {cfg.std_over} std" if cfg.scale_by_std else ""),
        objective,
        WEIGHTS[cfg.aggregation],
        clip(cfg, objective),
        kl(cfg),
        entropy(cfg),
        group_filter(cfg, cls),
        str(cfg.num_minibatches),
    )


def first_line(method: object) -> str:
    return (inspect.getdoc(method) or "").splitlines()[0]


def clip(cfg: AlgoConfig, objective: str) -> str:
    return f"{cfg.clip_low:g} / {cfg.clip_high:g}" if "clip" in objective else "none"


def kl(cfg: AlgoConfig) -> str:
    if cfg.kl_coef == 0:
        return "none"
    refresh = f", reference every {cfg.reference_refresh_updates} updates" if cfg.reference_refresh_updates else ""
    return f"{cfg.kl_coef:g} {cfg.kl_estimator} in the {cfg.kl_in}{refresh}"


def entropy(cfg: AlgoConfig) -> str:
    if cfg.entropy_target is not None:
        return f"towards {cfg.entropy_target:g}, at most {cfg.entropy_coef_max:g}"
    return f"{cfg.entropy_coef:g}" if cfg.entropy_coef else "none"


def group_filter(cfg: AlgoConfig, cls: Any) -> str:
    parts = []
    if cfg.filter.min_solve_rate is not None or cfg.filter.max_solve_rate is not None:
        low, high = (
            ("" if bound is None else f"{bound:g}") for bound in (cfg.filter.min_solve_rate, cfg.filter.max_solve_rate)
        )
        parts.append(f"{low} < solve rate < {high}".strip(" <"))
    if cfg.filter.drop_equal:
        parts.append("rewards differ")
    if parts:
        parts[-1] += f"; {cfg.filter.min_share:.0%} of the step"
    if "removed" in first_line(cls.advantages):
        parts.append(first_line(cls.advantages))
    return ", ".join(parts) or "none"


def whole() -> str:
    head, _, rest = README.read_text().partition("<!-- table -->\n")
    return f"{head}<!-- table -->\n{table()}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


def test_table_equals_code_and_options() -> None:
    assert README.read_text() == whole(), "python tests/unit/test_algo_readme.py rewrites it"


def test_every_algorithm_file_names_its_paper() -> None:
    for path in r1ray.algo.ALGORITHMS.values():
        module = importlib.import_module(path.partition(":")[0])
        assert "arXiv" in (module.__doc__ or ""), path


if __name__ == "__main__":
    README.write_text(whole())
