"""What the benches stand on: the machine's name and its measured limits, timing, memory, results as JSON."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spyolo.machine import machine
from spyolo.neurons import choose_amp

RESULTS = Path("runs/bench")


def describe() -> dict[str, Any]:
    """Processor, cores used, versions."""
    found = machine() | {"python": platform.python_version()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def seconds(work: Callable[[], Any], repeats: int, warm: int = 1) -> list[float]:
    """Wall seconds of each of `repeats` calls after `warm` unmeasured ones."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times


def peaks(device: str = "cpu") -> dict[str, float]:
    """GFLOP/s of a matrix product of 1024 (on a GPU 8192) in fp32 and bf16, the best of some, and GB/s of a copy beyond the caches."""
    n = 1024 if device == "cpu" else 8192
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        found[name] = 2 * n**3 / min(seconds(lambda a=a, b=b: a @ b, 20, 3)) / 1e9
    x = torch.randn(32_000_000, device=device)
    y = torch.empty_like(x)
    found["copy_gb_s"] = 2 * x.numel() * 4 / min(seconds(lambda: y.copy_(x), 8, 2)) / 1e9
    return found


def narrowest(device: torch.device | str) -> tuple[str, str]:
    """The narrowest precision of floats that the device has instructions for: as `autocast` calls it, and as a table does."""
    amp = choose_amp("auto", torch.device(device))
    return amp, "bf16" if amp == "bf16" else "fp32"


def summary(times: list[float], pictures: int, gflop: float = 0.0, peak: float = 0.0) -> dict[str, float]:
    """Median, spread (10 % to 90 %), pictures a second, and the rate of the arithmetic over the peak where it is known."""
    times = sorted(times)
    median = statistics.median(times)
    found = {
        "median_s": median, "low_s": times[len(times) // 10], "high_s": times[-1 - len(times) // 10], "pictures_s": pictures / median,
        "repeats": len(times),
    }  # fmt: skip
    if gflop:
        found["gflop_s"] = gflop / median
        if peak:
            found["of_peak"] = gflop / median / peak
    return found


class Saved:
    """Bytes that autograd keeps for backward passes: `peak` is the most at one time. A tensor kept twice in one storage counts once."""

    def __init__(self) -> None:
        self.alive: dict[int, list[int]] = {}
        self.now = self.peak = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)

    def pack(self, tensor: Tensor) -> Any:
        return _Kept(tensor, self)

    def __enter__(self) -> Saved:
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)


class _Kept:
    def __init__(self, tensor: Tensor, book: Saved) -> None:
        self.tensor, self.book = tensor, book
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        entry = book.alive.setdefault(self.key, [0, self.size])
        entry[0] += 1
        if entry[0] == 1:
            book.now += self.size
            book.peak = max(book.peak, book.now)

    def __del__(self) -> None:
        entry = self.book.alive[self.key]
        entry[0] -= 1
        if not entry[0]:
            self.book.now -= entry[1]
            del self.book.alive[self.key]


class PeakRSS:
    """Most resident memory of this process inside the block, above what it was before; looked at every 5 ms."""

    def __enter__(self) -> PeakRSS:
        gc.collect()
        self.start = self.most = resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.done.wait(0.005):
            self.most = max(self.most, resident())

    def __exit__(self, *error: Any) -> None:
        self.done.set()
        self.thread.join()

    @property
    def bytes(self) -> int:
        return self.most - self.start


def resident() -> int:
    """Bytes."""
    if Path("/proc/self/statm").exists():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def keep(name: str, found: dict[str, Any]) -> None:
    """Write runs/bench/NAME.json and say so."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": describe(), **found}, indent=1) + "\n")
    print(f"wrote {path}")


def gmac_of(detector: Any, size: int) -> float:
    """10^9 multiply-accumulates of one step on one picture, from shapes."""
    from spyolo.evaluation.meter import dense_counts

    counts = dense_counts(detector, torch.zeros(1, 3, size, size))
    return counts.total().dense_macs / 1e9
