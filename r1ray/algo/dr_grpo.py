"""Dr. GRPO ("GRPO done right", Liu et al., arXiv 2503.20783, 3.2 and figure 1; Oat-Zero).

    A_i   = r_i - mean r                          no division by the deviation: it favours problems too easy or too hard
    loss  = 1/N sum_i 1/L sum_t [ -J_i,t ]        L the longest completion allowed, for all: 1/T_i favours long wrong completions

The class is `Grpo`: both are options (`scale_by_std: false`, `aggregation: seq_mean_token_sum_norm`), as conf/algo/dr_grpo.yaml
sets them. No KL. Our choices: L is rollout.max_response_length (Oat-Zero: 3,000 tokens); the mean over N is over sequences that
have a token to train on. verl leaves that mean to the caller.
"""

from r1ray.algo.grpo import Grpo

DrGrpo = Grpo
