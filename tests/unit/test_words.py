"""Words of the field: names, comments and messages use those that a reader of verl, TRL or OpenRLHF knows, and not these."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    *(
        file
        for pattern in (
            "r1ray/**/*.py",
            "conf/**/*.yaml",
            "conf/*.md",
            "r1ray/**/*.md",
            "launch/*",
            "k8s/**/*.yaml",
            "k8s/*.md",
        )
        for file in ROOT.glob(pattern)
    ),
    ROOT / "README.md",
]
INSTEAD = {
    r"repl(?:y|ies)": "completion, response",
    r"learners?": "objective",
    r"other_?learners?": "auxiliary objective",
    r"tall(?:y|ies)": "accumulator",
    r"hearts?": "heartbeat",
    r"injur\w*": "fault injection",
    r"mend(?:s|ed|ing)?": "repair, on_failure",
    r"told": "logged, reported",
    r"tells?": "reports, says",
    r"stands? in": "replaced by",
    r"stood[ _]in": "replaced by",
    r"go(?:es)? by": "takes, uses",
    r"whom": "which",
    r"beside": "next to, besides",
    r"nobody": "no process",
    r"anew": "again, from scratch",
    r"keep_(?:low|high|unequal)|min_kept": "algo.filter",
    r"problems_per_step": "prompts_per_step",
    r"micro_batch_tokens": "max_tokens_per_micro_batch",
    r"max_nan_updates": "max_skipped_updates",
    r"rollout_correction|correction_cap": "importance_sampling, is_cap",
    r"all_(?:right|wrong)": "solve_all, solve_none",
    r"kl_rollout": "mismatch/kl",
    r"rewards?[ ._]parts?": "reward component",
}
"""{word that may not come back: the field's}."""
SHOWN_TO_A_MODEL = {
    "r1ray/data/templates.py": ["Reply in this layout"],
    "r1ray/examples/poems.py": ["as a friend would tell it"],
}
"""Text that is tokenised keeps its words."""


@pytest.mark.parametrize(
    "file", sorted(file for file in FILES if file.is_file()), ids=lambda file: str(file.relative_to(ROOT))
)
def test_words_are_the_fields(file: Path) -> None:
    text = file.read_text()
    for kept in SHOWN_TO_A_MODEL.get(str(file.relative_to(ROOT)), ()):
        text = text.replace(kept, "")
    found = {
        f"line {text[: match.start()].count(chr(10)) + 1}: {match[0]!r} -> {instead}"
        for word, instead in INSTEAD.items()
        for match in re.finditer(rf"(?<![A-Za-z_]){word}(?![A-Za-z_])", text, re.IGNORECASE)
    }
    assert not found, "\n".join(sorted(found))
