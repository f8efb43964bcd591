#!/usr/bin/env python3
"""Shim: `python tools/publish.py --help`."""

from spyolo.cli import run

if __name__ == "__main__":
    raise SystemExit(run("publish"))
