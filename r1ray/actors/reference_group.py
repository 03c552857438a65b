"""The reference workers as the loop sees them."""

from r1ray.actors.group import ActorGroup
from r1ray.types import Batch, Floats


class ReferenceGroup:
    def __init__(self, actors: ActorGroup, *, timeout_s: float) -> None:
        self._actors, self._timeout_s = actors, timeout_s

    def __len__(self) -> int:
        return len(self._actors)

    def logprobs(self, batch: Batch) -> list[list[Floats]]:
        """[worker][row] -> one value per token of the row; the batch is packed for `len(self)` ranks."""
        calls = zip(self._actors.handles, batch.rows, strict=True)
        refs = [handle.logprobs.remote(rows) for handle, rows in calls]
        return self._actors.gather(refs, what="compute log-probs", timeout_s=self._timeout_s)

    def load(self, path: str) -> None:
        refs = [handle.load.remote(path) for handle in self._actors.handles]
        self._actors.gather(refs, what="load the reference", timeout_s=self._timeout_s)
