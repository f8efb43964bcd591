"""The worked examples run by the commands in their docstrings (here: a moment of them)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
MOMENT = ["--pictures", "10", "--epochs", "1", "--size", "64", "--width", "0.1"]


@pytest.mark.parametrize(("name", "rule"), [("fcos", "fptt"), ("retinanet", "bptt")])
def test_example_trains_and_reports(name: str, rule: str, tmp_path: Path):
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1"}  # compiling takes longer than this training
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--rule", rule, "--data", str(tmp_path), *MOMENT]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{rule} T=2 seed 0: mAP@0.5 0." in done.stdout
    assert f"python docs/examples/{name}.py --rule {rule}" in (EXAMPLES / f"{name}.py").read_text()
