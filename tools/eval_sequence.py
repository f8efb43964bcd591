#!/usr/bin/env python3
"""Shim: `python tools/eval_sequence.py --help`."""

from spyolo.cli import run

if __name__ == "__main__":
    raise SystemExit(run("eval_sequence"))
