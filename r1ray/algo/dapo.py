"""DAPO (Yu et al., arXiv 2503.14476 eq. 8-13).

    A_i   = (r_i - mean r) / std r
    loss  = 1 / (sum of all T_i)  sum_i sum_t -min(rho A_i, clip(rho, 1 - 0.2, 1 + 0.28) A_i)        no KL
    only groups with  0 < number of right completions < G,  generated until the step is full

The class is `Grpo`, the parts are options, as conf/algo/dapo.yaml sets them:

    clip-higher            clip_low 0.2, clip_high 0.28
    token-level loss       aggregation: token_mean
    dynamic sampling       filter.min_solve_rate 0, filter.max_solve_rate 1 (of correctness, never of the shaped reward),
                           filter.min_share 1, filter.max_refills 10
    soft overlong          a part of the reward: conf/reward/dapo.yaml
    overlong filtering     reward.truncated=mask (off in the paper's best run)

Our choices: what is generated beyond the step is dropped, as in verl; dual clip is off (verl's script: 10).
"""

from r1ray.algo.grpo import Grpo

Dapo = Grpo
