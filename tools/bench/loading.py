"""Does loading hold training up? A training step fed by the real loader beside the same step on a batch that is there already.

    python tools/bench/loading.py --data VOC [--split 2007:train] [--batches 6]      # -> runs/bench/loading.json

Without --data the sample set is drawn (its pictures are simple and small: quicker to decode than photographs). Mosaic preset, 416, T = 3.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import machine
import torch
from training import Ours

from spyolo import builders, engine
from spyolo.config import Config
from spyolo.data import load_batches
from spyolo.memory import keep_freed_memory
from spyolo.running import EpochOrder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="")
    parser.add_argument("--split", default="2007:train")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--timesteps", type=int, default=3)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--workers", type=int, default=-1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    options: dict[str, Any] = {"data": args.data, "train": args.split, "size": args.size, "batch": args.batch, "augment": "mosaic"}
    if not args.data:
        from spyolo.data.sample import SAMPLE_CLASSES, make_sample

        make_sample("runs/sample-data", progress=False)
        options |= {"data": "runs/sample-data", "classes": SAMPLE_CLASSES}
    config = Config().updated(options)
    dataset = builders.training_set(config, builders.training_pictures(config))
    workers = builders.choose_workers(args.workers)
    start, wall = time.process_time(), time.perf_counter()
    for i in range(32):
        dataset[i]
    cpu, alone = (time.process_time() - start) / 32, (time.perf_counter() - wall) / 32
    loader = load_batches(dataset, workers, batch_sampler=EpochOrder(len(dataset), args.batch, 0, 0))
    first = next(iter(loader))
    step = Ours("spyv4_lite", "fptt", args.timesteps, first.images, first.objects)
    step()
    step()
    cached = machine.seconds(step, args.batches, 0)
    times, start = [], time.perf_counter()
    for i, batch in enumerate(loader):
        engine.train_batch(step.detector, step.loss, step.rule, batch.images, batch.objects, step.plan, amp=step.amp)
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
        if i == args.batches:
            break
    loaded = times[1:]  # the first waits for the workers to start
    result = {
        "data": args.data or "sample set", "batch": args.batch, "size": args.size, "timesteps": args.timesteps, "workers": workers,
        "cpu_seconds_a_picture": cpu, "seconds_a_picture_alone": alone, "cached_s": sum(cached) / len(cached),
        "loaded_s": sum(loaded) / len(loaded), "ratio": sum(loaded) / len(loaded) * len(cached) / sum(cached),
    }  # fmt: skip
    print(result)
    result["data"] = "given" if args.data else "sample set"
    machine.keep("loading", result)


if __name__ == "__main__":
    main()
