"""Measure the weights of a sequence network on the test of its task.

    tools/eval_sequence.py --weights smnist_ltc --data DIR             published weights (weights/sequence) by name
    tools/eval_sequence.py --weights runs/smnist/last.safetensors      W of a run's last epoch; best.safetensors: the best on the test
    tools/eval_sequence.py --weights runs/smnist/last.safetensors --publish smnist_ltc

Task, network and way of measuring are those of the run that made the weights; the options change where its data lie and how much of them
is used. `--publish` puts what was measured under a name into weights/sequence, with its figures and checksum and without paths of this
machine; `--init NAME` of train_sequence starts from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spyolo.cli.options import Parser
from spyolo.errors import InputError

if TYPE_CHECKING:
    from spyolo.neurons import Stack
    from spyolo.sequence.config import SequenceConfig
    from spyolo.sequence.tasks.base import Task

OF_CONFIG = ("data", "download", "test_limit", "eval_batch", "seed", "amp", "device")


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="eval_sequence", description=__doc__, argument_default=argparse.SUPPRESS)
    p.add_argument("--weights", required=True, metavar="NAME", help="published weights by name, or a weights file of train_sequence")
    p.add_argument("--data", metavar="DIR", help="folder or file of the data; else under the environment variable SPYOLO_DATA")
    p.add_argument("--download", action="store_true", help="let torchvision fetch MNIST or Fashion-MNIST if it is not there")
    p.add_argument("--test-limit", metavar="N", help="measure on so many sequences only; 0: all [as the weights say]")
    p.add_argument("--eval-batch", metavar="N", help="sequences a batch [as the weights say]")
    p.add_argument("--seed", metavar="N", help="of a test that is drawn (the adding problem) [as the weights say]")
    p.add_argument("--amp", metavar="V", help="bf16: matrix products of the cells in bf16; none: all in fp32 [as the weights say]")
    p.add_argument("--device", metavar="V", help="auto, cpu, cuda, cuda:1 ... [auto]")
    p.add_argument("--json", metavar="FILE", default=None, help="write what was measured to this file too")
    p.add_argument("--publish", metavar="NAME", default=None, help="put the weights among the published ones under this name")
    p.add_argument("--to", metavar="DIR", default=None, help="with --publish: folder [weights/sequence]")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from spyolo.files import write_whole
    from spyolo.memory import keep_freed_memory
    from spyolo.sequence.saved import load
    from spyolo.sequence.tasks import build_task

    if args.to and not args.publish:
        raise InputError("--to goes with --publish")
    keep_freed_memory()
    network, of_run = load(args.weights)
    given = {name: value for name, value in vars(args).items() if name in OF_CONFIG}
    config = of_run.updated({"device": "auto"} | given)
    task = build_task(config)
    check_sizes(args.weights, network, of_run, task)
    found = measure(network, config, task, progress=sys.stderr.isatty())
    print(told(network, config, task, found))
    if args.json:
        write_whole(args.json, json.dumps({"weights": args.weights, "config": config.to_dict(), "metrics": found}, indent=1) + "\n")
        print(f"wrote {args.json}")
    if args.publish:
        print(f"published {put(args, network, of_run, task, found)}")
    return 0


def check_sizes(name: str, network: Stack, config: SequenceConfig, task: Task) -> None:
    """Raises InputError where the data ask for another network than was trained: a text of other characters, say."""
    from spyolo.sequence.networks import build_network

    for (what, tensor), wanted in zip(network.state_dict().items(), build_network(config, task).state_dict().values()):
        if tensor.shape != wanted.shape:
            raise InputError(
                f"{name} does not fit these data: tensor {what} has shape {tuple(tensor.shape)}, they ask for {tuple(wanted.shape)}; "
                "measure on data of the kind it was trained on"
            )


def measure(network: Stack, config: SequenceConfig, task: Task, *, progress: bool) -> dict[str, Any]:
    """The task's figure, the loss, of spiking neurons the firing rate, the number of test sequences and the seconds it took."""
    from tqdm import tqdm

    from spyolo.neurons import choose_amp
    from spyolo.running import choose_device
    from spyolo.sequence import engine
    from spyolo.sequence.networks import SPIKING

    device = choose_device(config.device)
    network.amp = choose_amp(config.amp, device)
    size, began = config.eval_batch or config.batch, time.monotonic()
    batches = tqdm(task.test_batches(size), "measuring", total=-(-task.tests // size), disable=not progress, leave=False)
    found = engine.evaluate(network.to(device), task.objective, batches, predict=config.predict, device=device)
    if config.cell not in SPIKING:
        found.pop("test_rate")
    return found | {"sequences": task.tests, "seconds": round(time.monotonic() - began, 1), "device": device.type}


def told(network: Stack, config: SequenceConfig, task: Task, found: dict[str, Any]) -> str:
    """What was measured, in three lines."""
    tests = f"{found['sequences']:,} test sequence{'s' if found['sequences'] != 1 else ''}"
    rate = f"firing rate {found['test_rate']:.4f}; " if "test_rate" in found else ""
    count, metric = sum(p.numel() for p in network.parameters()), task.objective.metric
    return (
        f"{config.task}: {config.cell} network of {count:,} parameters, trained by {config.rule}\n"
        f"{metric} {found[metric]:.4f} over {tests} (loss {found['test_loss']:.4f})\n"
        f"{rate}{found['seconds']:.1f} s on {found['device']}"
    )


def put(args: argparse.Namespace, network: Stack, config: SequenceConfig, task: Task, found: dict[str, Any]) -> Path:
    """Into the folder of published weights."""
    from spyolo.sequence.published import publish, shelf
    from spyolo.sequence.saved import description

    init = Path(config.init)
    began = config.init if init.name == config.init else init.parent.name  # a name, or of a file the run's
    public = config.updated({"data": "", "out": f"runs/{args.publish}", "init": began, "device": "auto"})
    notes = {"metrics": {k: v for k, v in found.items() if k not in ("seconds", "device")}}
    where = Path(args.to) if args.to else shelf()
    return publish(args.publish, network.state_dict(), description(public, task.sizes, notes), where)
