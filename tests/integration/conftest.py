"""Processes and models for the trainer tests, made once a test file."""

from collections.abc import Iterator
from typing import Any

import pytest
from ranks import Ranks


@pytest.fixture(scope="module")
def ranks() -> Iterator[dict[int, Ranks]]:
    """{number of ranks: processes}; they start with their first use."""
    groups = {world_size: Ranks(world_size) for world_size in (1, 2, 4)}
    yield groups
    for group in groups.values():
        group.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Paths of `policy`, `reference` (a neighbour of policy) and `untied`."""
    from trainer_cases import make_models  # transformers, which other tests of this folder need not load

    return make_models(tmp_path_factory.mktemp("models"))
