import itertools

import pytest

from r1ray.sync import layout


@pytest.mark.parametrize(
    ("engines", "tp", "pp"), list(itertools.product([1, 2, 5], [1, 2, 8], [1, 2])), ids=lambda n: str(n)
)
def test_every_worker_of_every_engine_has_a_distinct_rank(engines: int, tp: int, pp: int) -> None:
    workers = layout.workers_per_engine(tensor_parallel_size=tp, pipeline_parallel_size=pp)
    # The worker adds its own rank inside its engine, counted from 0 in every engine.
    ranks = [
        layout.rank_offset(engine, workers=workers) + worker for engine in range(engines) for worker in range(workers)
    ]
    assert sorted([layout.SENDER_RANK, *ranks]) == list(range(layout.world_size(engines, workers=workers)))


def test_ranks_of_two_engines_with_two_workers() -> None:
    workers = layout.workers_per_engine(tensor_parallel_size=2)
    assert [layout.rank_offset(engine, workers=workers) for engine in range(2)] == [1, 3]
    assert layout.world_size(2, workers=workers) == 5
