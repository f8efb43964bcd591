#!/usr/bin/env python3
"""What does a dead process cost? A run of two under torchrun, undisturbed and with one of them killed in the middle of an epoch.

    tools/bench/killed.py

Prints the seconds of both runs and how many tensors of their last checkpoints and best weights differ (none should). Linux only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

def start(out: Path, data: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    command += [str(ROOT / "tools" / "train.py"), "--preset", "sample", "--data", str(data), "--classes", "sample", "--width", "0.05"]
    command += ["--size", "64", "--epochs", "3", "--eval-every", "3", "--save-seconds", "0", "--workers", "0", "--amp", "none", "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*command, "--out", str(out), "--continue"], env=environment, stdout=subprocess.DEVNULL)


def worker(launcher: int, rank: int) -> int:
    """Process id of a worker of a torchrun."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise SystemExit("no such worker")


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from spyolo.checkpoint import load_tensors
    from spyolo.data import make_sample

    with tempfile.TemporaryDirectory() as folder:
        data, outs, seconds = make_sample(Path(folder) / "data", pictures=100), [Path(folder) / name for name in ("whole", "killed")], []
        for out, kill in zip(outs, (False, True)):
            began = time.monotonic()
            run = start(out, data)
            if kill:
                while not (out / "last.safetensors").exists():
                    time.sleep(0.05)
                    if run.poll() is not None:
                        raise SystemExit("the run ended before its first checkpoint")
                time.sleep(0.5)
                os.kill(worker(run.pid, 1), signal.SIGKILL)
            if run.wait():
                raise SystemExit("a run failed")
            seconds.append(time.monotonic() - began)
            print(f"{'one process killed' if kill else 'undisturbed'}: {seconds[-1]:.1f} s", flush=True)
        for name in ("last", "best"):
            a, b = (load_tensors(out / f"{name}.safetensors")[0] for out in outs)
            differing = [k for k in a if k not in b or a[k].shape != b[k].shape or (a[k] != b[k]).any()]
            print(f"{name}.safetensors: {len(a)} tensors, {len(differing)} differ")


if __name__ == "__main__":
    main()
