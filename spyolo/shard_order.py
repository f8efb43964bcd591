"""The order in which an epoch reads shards: each once, a few at a time, dealt to processes so that no shard need be on two machines."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from spyolo.distributed import ALONE, Peers
from spyolo.errors import InputError
from spyolo.running import EpochOrder

WINDOW = 4  # shards whose pictures are mixed


class ShardOrder(EpochOrder):
    """Batches of places, a function of (seed, epoch): the shards are dealt into lanes at random, each lane about as long as the others; in
    each lane the pictures of WINDOW shards at a time are mixed; a batch takes an equal run from each lane, and a process the runs of its
    own lanes.

    What the batches are depends on the number of lanes, not on that of processes. An epoch ends with the shortest lane, and what is left of
    the others waits for another epoch, when they are dealt anew. Every epoch has as many batches as any other.

    Args:
        starts: place of the first picture of each shard, and the number of pictures at the end.
        batch, seed, epoch, first, most, peers: as in `EpochOrder`.
        lanes: how many streams; a multiple of the number of processes where each shall read shards of its own.

    Raises:
        InputError: lanes that cannot be shared by the processes, more lanes than shards, or a lane with less than its share of a batch.
    """

    def __init__(
        self, starts: Sequence[int], batch: int, seed: int, epoch: int, first: int = 0, *, most: int = 0, lanes: int = 1,
        peers: Peers = ALONE,
    ) -> None:  # fmt: skip
        shards = len(starts) - 1
        if lanes > 1 and lanes % peers.world:
            peers.refuse(f"{lanes} lanes cannot be shared by {peers.world} process(es): make --lanes a multiple of {peers.world}, or 1")
        if lanes > shards:
            raise InputError(f"{shards} shard(s) cannot be dealt into {lanes} lanes: make --lanes smaller, or write smaller shards")
        self.batch, self.first, self.peers = batch, first, peers
        rng = np.random.default_rng([seed, epoch, 1])
        hands = dealt([range(starts[s], starts[s + 1]) for s in range(shards)], lanes, rng)
        self.streams = [self._mixed(hand, rng) for hand in hands]
        run, shortest = batch // lanes, min(len(stream) for stream in self.streams)
        if lanes > 1 and shortest < run:
            peers.refuse(f"a lane of {shortest} pictures has less than its share of a batch, {run}: make --lanes or --batch smaller")
        whole = max(1, shortest // run)
        self.per_epoch = min(whole, most) if most else whole
        self.order = [i for k in range(self.per_epoch) for stream in self.streams for i in stream[k * run : (k + 1) * run]]

    @staticmethod
    def _mixed(shards: list[range], rng: np.random.Generator) -> list[int]:
        mixed: list[int] = []
        for k in range(0, len(shards), WINDOW):
            mixed += rng.permutation(np.concatenate([np.asarray(s) for s in shards[k : k + WINDOW]])).tolist()
        return mixed


def dealt(shards: Sequence[range], lanes: int, rng: np.random.Generator) -> list[list[range]]:
    """Shards into lanes of about equal length: the longest first, each to the lane that is the shortest so far, equal ones in random order
    (Graham's rule). So the lengths of the lanes depend on those of the shards alone, not on the epoch."""
    shuffled = [shards[i] for i in rng.permutation(len(shards))]
    hands: list[list[range]] = [[] for _ in range(lanes)]
    shortest = [(0, lane) for lane in range(lanes)]
    for shard in sorted(shuffled, key=len, reverse=True):
        length, lane = heapq.heappop(shortest)
        hands[lane].append(shard)
        heapq.heappush(shortest, (length + len(shard), lane))
    return [[hand[i] for i in rng.permutation(len(hand))] for hand in hands]
