"""Train a detector.

    tools/train.py                                            the embedded default: draws the sample set, trains a narrow spyv4_lite on it
    tools/train.py --preset voc --data DIR --out runs/voc     PASCAL VOC (DIR holds VOCdevkit)
    tools/train.py --resume runs/voc                          go on where a run was stopped or killed
    tools/train.py --preset voc --data DIR --init weights/x.safetensors      warm start
    torchrun --nproc-per-node 4 tools/train.py --preset voc --data DIR --out runs/voc      several processes (docs/scaling.md)

Any field of the config is an option (`--lr 2e-3 --timesteps 4`). The run folder gets the resolved config, log.csv and TensorBoard
events, last and best checkpoint, curves.png, metrics.json and predictions.png. Ctrl-C stops after the batch, resumably.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from spyolo.cli.options import Parser, add_config_options, given_options, tell_of_unread
from spyolo.config import Config, load_config, load_preset, preset_names
from spyolo.errors import InputError
from spyolo.files import is_there

SAMPLE_FOLDER = Path("runs/sample-data")


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="train", description=__doc__)
    p.add_argument("--preset", help=f"preset ({', '.join(preset_names())}) or YAML file [sample]")
    p.add_argument("--resume", metavar="RUN", help="run folder to go on with, with its own config; options given change it")
    p.add_argument("--continue", action="store_true", dest="go_on", help="go on with --out if it holds this very run, else start it")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    add_config_options(p)
    return p


def resolve(args: argparse.Namespace) -> Config:
    """The run's config: preset or resumed run, then the options given; the sample set where no data is named.

    Raises:
        InputError: no such preset or run, options that do not fit, or no data.
    """
    given = given_options(args)
    if given.get("data") == "":  # as of a shell variable that is not set: the sample set would be trained on instead
        raise InputError("--data is empty; give the folder that holds VOCdevkit, or leave it out")
    if "classes" in given:
        from spyolo.data.classes import parse_classes

        given["classes"] = parse_classes(given["classes"])  # as every other command reads them
    if args.resume:
        path = Path(args.resume) / "config.yaml"
        if not is_there(path):
            raise InputError(f"{args.resume}: no run to resume here (config.yaml is missing)")
        if "init" in given:
            raise InputError("--init starts a new run; it does not go with --resume")
        refuse_beside_resume(args)
        return load_config(path).updated(given | {"out": args.resume})
    preset = args.preset or "sample"
    config = load_preset(preset).updated(given)
    if config.data:
        return config
    if preset != "sample":
        raise InputError("--data is missing: the folder that holds VOCdevkit")
    from spyolo.data.sample_drawing import SAMPLE_CLASSES

    return config.updated({"data": str(SAMPLE_FOLDER), "classes": SAMPLE_CLASSES})


def refuse_beside_resume(args: argparse.Namespace) -> None:
    """A resumed run goes on with its own config, in its own folder.

    Raises:
        InputError: a preset, or another --out than the folder that is resumed: its run would be written over all the same.
    """
    if args.preset:
        raise InputError(
            f"--preset {args.preset} starts a new run; --resume goes on with the config of {args.resume}: leave one of them out"
        )
    out = getattr(args, "out", args.resume)
    if Path(out).resolve() != Path(args.resume).resolve():
        raise InputError(f"--out {out}: --resume goes on in {args.resume} itself; leave --out out, or copy the folder and resume the copy")


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.resume and args.go_on:
        raise InputError("--resume RUN goes on with a run that is there, --continue also starts one; give one of them")
    config = resolve(args)
    from spyolo.distributed import joined, restarted  # after parsing: --help and bad options need no torch

    with joined() as peers:
        from spyolo.data.sample import make_sample
        from spyolo.memory import keep_freed_memory
        from spyolo.resuming import holds_this_run
        from spyolo.summary import describe_start, finish
        from spyolo.trainer import Trainer

        keep_freed_memory()
        if config.data == str(SAMPLE_FOLDER):
            peers.first_does(lambda: make_sample(SAMPLE_FOLDER, progress=not args.quiet))
        resume = bool(args.resume) or ((args.go_on or restarted()) and peers.first_does(lambda: holds_this_run(config)))
        trainer = Trainer(config, resume=resume, quiet=args.quiet, peers=peers)
        if peers.first:
            tell_of_unread(given_options(args), [config])
            print(describe_start(trainer), flush=True)
        done = trainer.fit()
    if not peers.first:
        return 0
    print(finish(trainer) if done else f"stopped after epoch {trainer.epoch} and {trainer.batch} batches; go on with --resume {config.out}")
    return 0
