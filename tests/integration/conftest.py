"""Processes and models for the trainer tests, created once per test file."""

from collections.abc import Iterator
from typing import Any

import pytest
from ranks import Ranks


@pytest.fixture(scope="module")
def ranks() -> Iterator[dict[int, Ranks]]:
    """{number of ranks: processes}; started on first use."""
    groups = {world_size: Ranks(world_size) for world_size in (1, 2, 4)}
    yield groups
    for group in groups.values():
        group.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Paths of `policy`, `reference` (similar to policy) and `untied`."""
    from trainer_cases import make_models  # imports transformers, which other tests of this folder do not need

    return make_models(tmp_path_factory.mktemp("models"))
