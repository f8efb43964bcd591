"""torch.hub from a folder: what GitHub would serve."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from spyolo.detection import SpikingYOLO
from spyolo.errors import InputError
from spyolo.features import SpikingBackbone
from spyolo.predictor import Predictor

ROOT = str(Path(__file__).resolve().parent.parent)


def load(name: str, *args: Any, **options: Any) -> Any:
    return torch.hub.load(ROOT, name, *args, source="local", **options)


def test_entries_are_listed_with_help():
    conf = runpy.run_path(f"{ROOT}/hubconf.py")
    entries = {name for name, value in conf.items() if callable(value) and not name.startswith("_")}  # the rule of torch.hub.list
    assert entries == {"spyv4", "spyv4_lite", "yolov4_tiny", "backbone", "predictor"}
    assert all(conf[name].__doc__ for name in entries)
    assert all(importlib.util.find_spec(name) for name in conf["dependencies"])


def test_dependencies_are_the_required_packages_that_loading_imports(weights_file: Path):
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]
    required = {re.split(r"[\[<>=!~; ]", line)[0] for line in project["dependencies"]}
    imported_as = {"pillow": "PIL", "opencv-python-headless": "cv2", "pyyaml": "yaml"}
    names = {imported_as.get(name, name.replace("-", "_")) for name in required}
    load_all = f"""
import sys, hubconf
hubconf.spyv4_lite({str(weights_file)!r}), hubconf.yolov4_tiny(width=0.1)
hubconf.backbone(width=0.1), hubconf.predictor({str(weights_file)!r})
print({names!r} & set(sys.modules) ^ set(hubconf.dependencies))
"""
    done = subprocess.run([sys.executable, "-c", load_all], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr


def test_detectors_backbone_and_predictor(weights_file: Path):
    detector = load("spyv4", num_classes=4, width=0.1)
    assert isinstance(detector, SpikingYOLO) and detector.spec.num_classes == 4
    assert not load("spyv4_lite", pretrained=str(weights_file)).training
    assert load("spyv4", width=0.1).spec.num_classes == 20
    assert isinstance(load("backbone", "spyv4_lite", (2, 3), width=0.1), SpikingBackbone)
    assert isinstance(load("predictor", str(weights_file), confidence=0.4), Predictor)


def test_unknown_names_are_told(weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPYOLO_WEIGHTS", str(tmp_path))
    with pytest.raises(RuntimeError, match="Cannot find callable spyv5 in hubconf"):
        load("spyv5")
    with pytest.raises(InputError, match="no published weights of that name"):
        load("spyv4_lite", pretrained="nobody")
    with pytest.raises(InputError, match="no published weights of spyv4"):
        load("spyv4", pretrained=True)
    with pytest.raises(InputError, match="weights of spyv4_lite, not of spyv4"):
        load("spyv4", pretrained=str(weights_file))
    with pytest.raises(InputError, match="width: a weights file says these itself"):
        load("spyv4_lite", pretrained=str(weights_file), width=1.0)


def test_classes_are_those_of_the_file(weights_file: Path):
    assert load("spyv4_lite", pretrained=str(weights_file), num_classes=5).spec.num_classes == 5
    with pytest.raises(InputError, match="weights of 5 classes, not of 20; leave num_classes out"):
        load("spyv4_lite", pretrained=str(weights_file), num_classes=20)
