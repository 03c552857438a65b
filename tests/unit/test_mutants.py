"""The mutants of `tests/mutants.py` fit the code. Running them takes many minutes: `python tests/mutants.py`."""

import mutants


def test_each_line_occurs_once() -> None:
    found = {mutant.name: (mutants.REPO / mutant.file).read_text().count(mutant.line) for mutant in mutants.MUTANTS}
    assert len(found) == len(mutants.MUTANTS) >= 60, "each has its own name"
    assert {name: count for name, count in found.items() if count != 1} == {}
