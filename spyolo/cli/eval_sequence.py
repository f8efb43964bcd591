"""Measure the weights of a sequence network on the test of its task, whatever they were judged by while training.

    tools/eval_sequence.py --weights smnist_ltc --data DIR             published weights (weights/sequence) by name
    tools/eval_sequence.py --weights runs/smnist/last.safetensors      W as a run left it; best.safetensors: the best
    tools/eval_sequence.py --weights runs/smnist/last.safetensors --publish smnist_ltc

Task, network and way of measuring are those of the run that made the weights; the options change where its data lie and how much of them
is used. `--publish` puts what was measured under a name into weights/sequence, with figures, checksum, a card and the log of its training
pieces, and without paths of this machine; only a better one replaces it. `--init NAME` of train_sequence starts from it.
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
    from spyolo.published import Entry
    from spyolo.sequence.config import SequenceConfig
    from spyolo.sequence.saved import Saved
    from spyolo.sequence.tasks.base import Task

OF_CONFIG = ("data", "download", "judge", "test_limit", "eval_batch", "seed", "device")


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="eval_sequence", description=__doc__, argument_default=argparse.SUPPRESS)
    p.add_argument("--weights", required=True, metavar="NAME", help="published weights by name, or a weights file of train_sequence")
    p.add_argument("--data", metavar="DIR", help="folder or file of the data; else under the environment variable SPYOLO_DATA")
    p.add_argument("--download", action="store_true", help="let torchvision fetch MNIST or Fashion-MNIST if it is not there")
    p.add_argument("--judge", metavar="V", choices=("test", "validation"), help="measure on the validation part instead [test]")
    p.add_argument("--test-limit", metavar="N", help="measure on so many sequences (text: windows) only; 0: all [as the weights say]")
    p.add_argument("--eval-batch", metavar="N", help="sequences a batch (text: no matter) [as the weights say]")
    p.add_argument("--seed", metavar="N", help="of a drawn test (the adding problem, R-MNIST) [as the weights say]")
    p.add_argument("--amp", metavar="V", choices=("none", "bf16"), help="bf16: products of the cells in bf16 [as the weights say]")
    p.add_argument("--device", metavar="V", help="auto, cpu, cuda, cuda:1 ... [auto]")
    p.add_argument("--json", metavar="FILE", default=None, help="write what was measured to this file too")
    p.add_argument("--publish", metavar="NAME", default=None, help="put the weights among the published ones under this name")
    p.add_argument("--to", metavar="DIR", default=None, help="with --publish: folder [weights/sequence]")
    p.add_argument("--replace", action="store_true", default=False, help="with --publish: replace a file even by a worse one")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from spyolo.files import write_whole
    from spyolo.memory import keep_freed_memory
    from spyolo.sequence.saved import check_held_out, check_sizes, read
    from spyolo.sequence.tasks import build_task

    if (args.to or args.replace) and not args.publish:
        raise InputError(f"{'--to' if args.to else '--replace'} goes with --publish")
    keep_freed_memory()
    saved = read(args.weights)
    given = {name: value for name, value in vars(args).items() if name in OF_CONFIG}
    config = saved.config.updated({"device": "auto", "download": False, "judge": "test"} | given)
    amp = getattr(args, "amp", config.amp)
    if amp == "bf16" and config.dtype != "float32":
        raise InputError(f"--amp bf16 goes with float32, these weights are {config.dtype}")
    rival = None
    if args.publish:
        check_whole_test(args.publish, config, saved.config)
        rival = rival_of(args, saved.config.task)  # before minutes of measuring
    task = build_task(config)
    check_sizes(args.weights, saved.sizes, task.sizes)
    if task.held_out:
        check_held_out(args.weights, saved.config, config)
    found, protocol = measure(saved.network, config, task, amp, progress=sys.stderr.isatty())
    print(told(saved.network, config, task, found, protocol))
    if args.json:
        row = {"weights": args.weights, "config": config.to_dict(), "metrics": found, "protocol": protocol}
        write_whole(args.json, json.dumps(row, indent=1) + "\n")
        print(f"wrote {args.json}")
    if args.publish:
        of_run = config.updated({"judge": saved.config.judge})
        print(f"published {put(args, saved._replace(config=of_run), task, found, protocol, rival)}")
    return 0


def check_whole_test(name: str, config: SequenceConfig, of_run: SequenceConfig) -> None:
    """Raises InputError, before anything is measured, for a name that is none, or figures of less than the test that the task has."""
    from spyolo.sequence.published import check_name

    check_name(name)
    if config.test_limit or config.seed != of_run.seed or config.judge != "test":
        raise InputError("--publish measures the whole test of the run's seed: give --test-limit 0, and no --seed or --judge")


def measure(
    network: Stack, config: SequenceConfig, task: Task, amp: str, *, progress: bool
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """The task's figure, the loss and of spiking neurons the firing rate; and how much was tested, on what machine."""
    from tqdm import tqdm

    from spyolo.machine import machine
    from spyolo.neurons import choose_amp
    from spyolo.running import choose_device
    from spyolo.sequence import engine
    from spyolo.sequence.networks import SPIKING

    device = choose_device(config.device)
    network.amp = choose_amp(amp, device)
    size, began = config.eval_batch or config.batch, time.monotonic()
    count = task.tests if task.streams else -(-task.tests // size)
    batches = tqdm(task.test_batches(size), "measuring", total=count, disable=not progress, leave=False)
    found = engine.evaluate(network.to(device), task.objective, batches, predict=config.predict, device=device)
    if config.cell not in SPIKING:
        found.pop("test_rate")
    unit = f"{config.judge} {'window' if task.streams else 'sequence'}"
    tests = f"{task.tests:,} {unit}{'s' if task.tests != 1 else ''}"
    seconds = round(time.monotonic() - began, 1)
    return found, {"tests": tests, "seconds": seconds, "amp": amp, "device": device.type, **machine(device)}


def told(network: Stack, config: SequenceConfig, task: Task, found: dict[str, Any], protocol: dict[str, Any]) -> str:
    """What was measured, in three lines."""
    rate = f"firing rate {found['test_rate']:.4f}; " if "test_rate" in found else ""
    count, metric = sum(p.numel() for p in network.parameters()), task.objective.metric
    return (
        f"{config.task}: {config.cell} network of {count:,} parameters, trained by {config.rule}\n"
        f"{metric} {found[metric]:.4f} over {protocol['tests']} (loss {found['test_loss']:.4f})\n"
        f"{rate}{protocol['seconds']:.1f} s on {protocol['device']}"
    )


def rival_of(args: argparse.Namespace, task: str) -> Entry | None:
    """What is published under the name so far. Raises InputError: it is of another task, which no figure of this one is better than."""
    from spyolo.published import read_manifest
    from spyolo.sequence.published import shelf

    rival = read_manifest(Path(args.to) if args.to else shelf()).get(args.publish)
    if rival and not args.replace and rival.config.get("task") != task:
        raise InputError(f"{args.publish} is published weights of {rival.config.get('task')}, these are of {task}; give another name "
                         "(--replace replaces them all the same)")  # fmt: skip
    return rival


def put(
    args: argparse.Namespace, saved: Saved, task: Task, found: dict[str, Any], protocol: dict[str, Any], rival: Entry | None
) -> Path:  # fmt: skip
    """Into the folder of published weights. `saved`: with the config that was measured, judged as its run was."""
    from spyolo.sequence.config import INITS
    from spyolo.sequence.pieces import pieces_in
    from spyolo.sequence.published import publish, shelf
    from spyolo.sequence.saved import description

    name, where, metric = args.publish, Path(args.to) if args.to else shelf(), task.objective.metric
    before = None if args.replace else rival
    if before and not task.objective.better(found[metric], before.metrics.get(metric)):
        raise InputError(
            f"{name}: {metric} {found[metric]:.4f} is no better than the published {before.metrics[metric]:.4f}; nothing was replaced "
            "(--replace does it all the same)"
        )
    start = saved.config.init if saved.config.init in INITS else "unpublished"  # a path of this machine; the pieces tell
    public = saved.config.updated({"data": "", "out": f"runs/{name}", "init": start, "device": "auto", "download": False})
    *earlier, piece = pieces_in(saved.notes)
    pieces = [*earlier, {**piece, metric: round(found[metric], 4)}]  # a checkpoint is saved without a figure
    notes = {k: v for k, v in saved.notes.items() if k == "epoch"} | {"pieces": pieces, "metrics": found}
    metadata = description(public, saved.sizes, notes)
    return publish(name, saved.network.cpu().state_dict(), metadata, public, found, protocol, where, rival)
