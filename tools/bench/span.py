"""A batch of LTC neurons step by step beside the same in one go up to each question, in torch's operations and by native code, turn by
turn: processor time a step and ratios.

    OMP_NUM_THREADS=1 python tools/bench/span.py [--rounds 5]

Networks, batches and updates are those of the preset `adding` (at T = 1,000), and of `smnist` with 128 sequences a batch in seven parts;
the pictures of the latter are noise, which costs the same. FPTT, an update at the end of each part. Median over the rounds.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from types import SimpleNamespace

import torch

from spyolo.learning.window import WindowRule
from spyolo.memory import keep_freed_memory
from spyolo.neurons import native
from spyolo.sequence.batch import Batch
from spyolo.sequence.config import load_sequence_preset
from spyolo.sequence.engine import train_batch
from spyolo.sequence.networks import build_network, rule_for
from spyolo.sequence.objectives import ACCURACY, MSE

PIXELS = {"timesteps": 784, "batch": 128, "parts": 7}
ROWS = {  # title: (preset, changes, inputs, outputs, objective)
    "adding, T = 1000": ("adding", {"timesteps": 1000}, 2, 1, MSE),
    "S-MNIST": ("smnist", PIXELS, 1, 10, ACCURACY),
    "S-MNIST, products in bf16": ("smnist", PIXELS | {"amp": "bf16"}, 1, 10, ACCURACY),
}


class Stepwise(WindowRule):
    """The rule as it is for networks that know no spans."""

    skims = False  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()
    if native.library() is None:
        raise SystemExit(f"there is no native code to compare: {native.why_not()}")
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| batch | step by step, ms a step | in one go, torch | ratio | in one go, native | ratio |\n|---|---|---|---|---|---|")
    by_native = native.span_steps
    for title, (preset, changes, inputs, outputs, objective) in ROWS.items():
        config = load_sequence_preset(preset).updated(changes)
        task = SimpleNamespace(inputs=(inputs,), outputs=outputs, vocabulary=None, timesteps=config.timesteps)
        targets = torch.rand(config.batch) if objective is MSE else torch.randint(outputs, (config.batch,))
        batch = Batch(torch.rand(config.timesteps, config.batch, inputs), targets, config.timesteps)
        rules = [rule_for(config, build_network(config, task), objective) for _ in range(3)]
        rules[0].__class__ = Stepwise
        times: list[list[float]] = [[], [], []]
        for _ in range(args.rounds + 1):  # the first compiles
            for rule, taken in zip(rules, times):
                native.span_steps = (lambda *_: None) if rule is rules[1] else by_native
                begin = time.process_time()
                train_batch(rule, objective, batch, parts=config.parts, supervise=config.supervise)
                taken.append(1e3 * (time.process_time() - begin) / config.timesteps)
        steps, torchs, natives = (median(taken[1:]) for taken in times)
        print(f"| {title} | {steps:.3f} | {torchs:.3f} | {torchs / steps:.2f} | {natives:.3f} | {natives / steps:.2f} |", flush=True)


if __name__ == "__main__":
    main()
