"""Over how many devices the attention of a model can be split by its heads. Imports nothing."""


def head_splits(heads: int, kv_heads: int) -> list[int]:
    """Query heads are split evenly; key-value heads are split evenly too, or each is copied to the same number of devices.

    Example: 28 heads and 4 key-value heads can be split over 1, 2, 4 and 28 devices.
    """
    return [n for n in range(1, heads + 1) if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]
