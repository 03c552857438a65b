"""Over how many devices attention can be split by heads. Imports nothing."""


def head_splits(heads: int, kv_heads: int) -> list[int]:
    """Numbers of devices over which query and key-value heads split evenly, or each key-value head is copied equally often.

    Example: 28 heads and 4 key-value heads can be split over 1, 2, 4 and 28 devices.
    """
    return [n for n in range(1, heads + 1) if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]
