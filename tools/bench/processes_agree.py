#!/usr/bin/env python3
"""Is a run of two processes as good as a run of one? mAP on the drawn sample set, some seeds of each, norms live.

    tools/bench/processes_agree.py --seeds 3 --epochs 8

Two processes see the same batches, but their norms see half a batch each: that is the one difference. Runs of one process use one thread,
and go two at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(out: Path, data: Path, seed: int, epochs: int, processes: int) -> subprocess.Popen[bytes]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    options = ["--preset", "sample", "--data", str(data), "--classes", "sample", "--width", "0.25", "--size", "96", "--epochs", str(epochs)]
    options += ["--eval-every", "1000", "--save-seconds", "1000", "--workers", "0", "--seed", str(seed), "--out", str(out), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *torchrun, str(ROOT / "tools" / "train.py"), *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--processes", default="1,2")
    args = p.parse_args()
    sys.path.insert(0, str(ROOT))
    from spyolo.data import make_sample

    with tempfile.TemporaryDirectory() as folder:
        data = make_sample(Path(folder) / "data")
        scores: dict[int, list[float]] = {}
        for processes in (int(word) for word in args.processes.split(",")):
            at_once = 2 if processes == 1 else 1
            outs = [Path(folder) / f"{processes}-{seed}" for seed in range(args.seeds)]
            for first in range(0, args.seeds, at_once):
                running = [start(outs[s], data, s, args.epochs, processes) for s in range(first, min(first + at_once, args.seeds))]
                if any(process.wait() for process in running):
                    sys.exit("a run failed")
            scores[processes] = [json.loads((out / "metrics.json").read_text())["voc10_ap50"] for out in outs]
            shown = "  ".join(f"{score:.3f}" for score in scores[processes])
            spread = f", standard deviation {statistics.stdev(scores[processes]):.3f}" if args.seeds > 1 else ""
            print(f"{processes} process(es): mAP@0.5 {shown}   mean {statistics.mean(scores[processes]):.3f}{spread}", flush=True)


if __name__ == "__main__":
    main()
