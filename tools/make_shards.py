#!/usr/bin/env python3
"""Shim: `python tools/make_shards.py --help`."""

from spyolo.cli import run

if __name__ == "__main__":
    raise SystemExit(run("make_shards"))
