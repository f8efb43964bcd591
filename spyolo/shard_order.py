"""The order in which an epoch reads shards: each once, a few at a time, dealt to processes so that no shard need be on two machines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spyolo.distributed import ALONE, Peers
from spyolo.errors import InputError
from spyolo.running import EpochOrder

WINDOW = 4  # shards whose pictures are mixed


class ShardOrder(EpochOrder):
    """Batches of places, a function of (seed, epoch): the shards are put in random order and dealt into lanes; in each lane the pictures of
    WINDOW shards at a time are mixed; a batch takes an equal run from each lane, and a process the runs of its own lanes.

    What the batches are depends on the number of lanes, not on that of processes. Lanes are of unequal length where shards are: an epoch
    ends with the shortest, and what is left of the others then waits for another epoch, when they are dealt anew.

    Args:
        starts: place of the first picture of each shard, and the number of pictures at the end.
        batch, seed, epoch, first, peers: as in `EpochOrder`.
        lanes: how many streams; a multiple of the number of processes where each shall read shards of its own.

    Raises:
        InputError: lanes that cannot be shared by the processes, or more lanes than shards.
    """

    def __init__(
        self, starts: Sequence[int], batch: int, seed: int, epoch: int, first: int = 0, *, lanes: int = 1, peers: Peers = ALONE
    ) -> None:
        shards = len(starts) - 1
        if lanes > 1 and lanes % peers.world:
            peers.refuse(f"{lanes} lanes cannot be shared by {peers.world} process(es): make --lanes a multiple of {peers.world}, or 1")
        if lanes > shards:
            raise InputError(f"{shards} shard(s) cannot be dealt into {lanes} lanes: make --lanes smaller, or write smaller shards")
        self.batch, self.first, self.peers = batch, first, peers
        rng = np.random.default_rng([seed, epoch, 1])
        dealt = rng.permutation(shards)
        self.streams = [self._mixed([range(starts[s], starts[s + 1]) for s in dealt[lane::lanes]], rng) for lane in range(lanes)]
        self.per_epoch = max(1, min(len(stream) for stream in self.streams) // (batch // lanes))
        run = batch // lanes
        self.order = [i for k in range(self.per_epoch) for stream in self.streams for i in stream[k * run : (k + 1) * run]]

    @staticmethod
    def _mixed(shards: list[range], rng: np.random.Generator) -> list[int]:
        mixed: list[int] = []
        for k in range(0, len(shards), WINDOW):
            mixed += rng.permutation(np.concatenate([np.asarray(s) for s in shards[k : k + WINDOW]])).tolist()
        return mixed
