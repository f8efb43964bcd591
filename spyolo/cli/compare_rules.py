"""Compare learning rules on a sequence task: the same data and seeds, one table and one figure.

    tools/compare_rules.py --task adding --rules fptt,bptt --seeds 0,1,2 --out runs/compare
    tools/compare_rules.py --task adding --rules fptt:ltc:10,bptt:lstm,eprop:alif --lengths 100,1000 --out runs/compare
    tools/compare_rules.py --task jsb --rules bptt,ostl --data DIR --epochs 10 --out runs/jsb-rules

A contender is rule, rule:cell or rule:cell:parts. --parts and --weights-of are for fptt: other rules take 1 part where they do not name
another, and are judged by their weights. Every run is kept in a folder of its own under --out, so the same command goes on where it was
stopped. --lengths measures peak memory and time of a batch of the adding problem against T, on --device. All other options are those of
train_sequence. Writes comparison.md, comparison.png, curves.csv and costs.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from spyolo.cli.options import Parser, add_config_options, given_options, tell_of_unread
from spyolo.cli.train_sequence import preset_for
from spyolo.errors import InputError
from spyolo.sequence.config import SequenceConfig, sequence_presets


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="compare_rules", description=__doc__)
    p.add_argument("--rules", default="fptt,bptt", help="contenders, with commas between [fptt,bptt]")
    p.add_argument("--seeds", default="0", help="seeds, with commas between [0]")
    p.add_argument("--lengths", default="", help="T at which memory and time are measured, with commas between [none]")
    p.add_argument("--preset", help=f"preset ({', '.join(sequence_presets())}) or YAML file [the task's]")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    add_config_options(p, leave_out=("rule", "seed"), defaults=SequenceConfig())
    return p


def numbers(text: str, name: str) -> list[int]:
    """Raises InputError for what is no list of whole numbers of 0 or more, each once: one counted twice would pass for two runs."""
    try:
        found = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(f"--{name} takes whole numbers with commas between, got {text!r}") from None
    if any(n < 0 for n in found):
        raise InputError(f"--{name} takes whole numbers that are not negative, got {text!r}")
    if len(set(found)) < len(found):
        raise InputError(f"--{name} names {next(n for n in found if found.count(n) > 1)} more than once, got {text!r}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    seeds, lengths = numbers(args.seeds, "seeds"), numbers(args.lengths, "lengths")
    given = given_options(args, SequenceConfig)
    config = preset_for(args.preset, given.get("task", "adding")).updated(given)
    if not seeds:
        raise InputError("--seeds is empty: give at least one")
    from spyolo.memory import keep_freed_memory
    from spyolo.sequence import compare

    configs = compare.contenders([word for word in args.rules.split(",") if word], config)
    if not configs:
        raise InputError("--rules is empty: give at least one")
    tell_of_unread(given, list(configs.values()))
    out = Path(config.out)
    plan = compare.planned(configs, seeds, out)
    measured = compare.costs(configs, lengths)  # minutes at most, and before the hours of training
    if measured:
        compare.write_costs(out, measured)
    keep_freed_memory()  # not before: it is the plain allocator that is measured
    runs = compare.train_all(plan, args.quiet)
    if runs is None:
        print("stopped; the same command goes on from here")
        return 0
    compare.write(out, runs, measured)
    print(compare.table(runs, measured))
    print(f"written to {out}: comparison.md, comparison.png, curves.csv{', costs.csv' if measured else ''}")
    return 0
