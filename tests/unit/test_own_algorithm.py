"""An algorithm from outside the repository, by import path: a file of its own and nothing of ours."""

import numpy as np
import pytest
from algo_samples import algo_config, sample

from r1ray.algo import make
from r1ray.check import load
from r1ray.cli import compose

OWN = """
from dataclasses import dataclass
from r1ray.algo.policy import PolicyGradient, spread

@dataclass(frozen=True, kw_only=True)
class Threshold(PolicyGradient):
    above: float

    def _advantages(self, samples, state):
        return spread(samples, [1.0 if reward > self.above else -1.0 for reward in self.rewards(samples, state)])
"""


def test_an_algorithm_of_ones_own_takes_a_few_lines(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_algorithms.py").write_text(OWN)
    cfg = load(compose(["algo.name=my_algorithms:Threshold", "algo.args.above=0.5", "algo.kl_coef=0"])).config.algo
    algo = make(cfg, max_response_length=8)
    out = algo.advantages([sample(3, reward=r, index=i) for i, r in enumerate((1.0, 0.0))], algo.initial_state())
    assert [s.advantages_T.tolist() for s in out] == [[0, 1, 1], [0, -1, -1]]
    assert len(algo.minibatches(out, {}, np.random.default_rng(0))) == algo_config().minibatches
