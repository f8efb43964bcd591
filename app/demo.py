#!/usr/bin/env python3
"""Shim: `python app/demo.py --help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from spyolo.cli import guarded
    from spyolo.cli.demo import main

    raise SystemExit(guarded(main))
