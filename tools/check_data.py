#!/usr/bin/env python3
"""Shim: `python tools/check_data.py --help`."""

from spyolo.cli import run

if __name__ == "__main__":
    raise SystemExit(run("check_data"))
