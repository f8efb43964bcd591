"""Train neurons on a sequence task by any learning rule.

    tools/train_sequence.py                                          the adding problem, LTC neurons, FPTT
    tools/train_sequence.py --task smnist --rule fptt --cell ltc --data DIR --out runs/smnist
    tools/train_sequence.py --task jsb --rule ostl --cell ssnu       data under the environment variable SPYOLO_DATA
    tools/train_sequence.py --resume runs/smnist                     go on where a run was stopped or killed

A task brings its own settings (spyolo/sequence/presets); any field of the config is an option that changes them. The run folder gets the
resolved config, log.csv and TensorBoard events, last and best checkpoint, curves.png. Ctrl-C stops after the batch, resumably.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from spyolo.cli.options import Parser, add_config_options, given_options, tell_of_unread
from spyolo.cli.train import refuse_beside_resume
from spyolo.errors import InputError
from spyolo.files import is_there
from spyolo.sequence.config import SequenceConfig, load_sequence_config, load_sequence_preset, sequence_presets


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="train_sequence", description=__doc__)
    p.add_argument("--preset", help=f"preset ({', '.join(sequence_presets())}) or YAML file [the task's]")
    p.add_argument("--resume", metavar="RUN", help="run folder to go on with, with its own config; options given change it")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    add_config_options(p, defaults=SequenceConfig())
    return p


def resolve(args: argparse.Namespace) -> SequenceConfig:
    """The run's config: the task's preset or a resumed run, then the options given.

    Raises:
        InputError: no such preset or run, or options that do not fit.
    """
    given = given_options(args, SequenceConfig)
    if args.resume:
        path = Path(args.resume) / "config.yaml"
        if not is_there(path):
            raise InputError(f"{args.resume}: no run to resume here (config.yaml is missing)")
        refuse_beside_resume(args)
        return load_sequence_config(path).updated(given | {"out": args.resume})
    return preset_for(args.preset, given.get("task", "adding")).updated(given)


def preset_for(preset: str | None, task: str) -> SequenceConfig:
    """The preset named, or that of the task where it has one."""
    if preset:
        return load_sequence_preset(preset)
    return load_sequence_preset(task) if task in sequence_presets() else SequenceConfig()


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    config = resolve(args)
    from spyolo.memory import keep_freed_memory
    from spyolo.sequence.trainer import SequenceTrainer, describe

    keep_freed_memory()
    trainer = SequenceTrainer(config, resume=bool(args.resume), quiet=args.quiet)
    tell_of_unread(given_options(args, SequenceConfig), [config])
    print(describe(trainer))
    if not trainer.fit():
        print(f"stopped after epoch {trainer.epoch} and {trainer.batch} batches; go on with --resume {config.out}")
        return 0
    row, metric = trainer.history[-1], trainer.objective.metric
    weights = "W" if config.weights_of == "w" else "the average of W"
    judge = trainer.config.judge
    print(f"{metric} {row[metric]:.4f} on the {judge} with {weights} after {row['updates']} updates (best {trainer.best:.4f})")
    print(f"run folder {trainer.folder.path}")
    return 0
