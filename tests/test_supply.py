"""What spyolo stands on, and what is shipped: bounds, lock, licences; wheel and sdist, installed where nothing else of ours is."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def supply() -> ModuleType:
    pytest.importorskip("packaging")
    spec = importlib.util.spec_from_file_location("supply", ROOT / ".ci" / "supply.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_required_package_has_a_bound_and_the_lock_keeps_to_it(supply):
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked, bounds = supply.read_lock(), supply.project()
    assert len(bounds[""]) > 10 and {"app", "dev"} < bounds.keys()
    for part, requirements in bounds.items():
        for text in requirements:
            wanted = Requirement(text)
            name = canonicalize_name(wanted.name)
            if name == "spyolo":
                continue
            assert wanted.specifier or part == "dev", f"{text} has no bound"
            assert wanted.specifier.contains(locked[name], prereleases=True), f"{text}: the lock has {locked[name]}"


def test_the_lock_names_versions_and_nothing_else(supply):
    lines = [line for line in supply.LOCK.read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 50 and all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert {"torch", "torchvision", "numpy", "pytest", "gradio"} <= supply.read_lock().keys()
    assert not re.search("opencv-python==|opencv-contrib", supply.LOCK.read_text())  # it and the headless build overwrite each other


def test_a_copyleft_licence_is_seen(supply):
    for text in ("GPL-3.0-only", "GNU Lesser General Public License v3", "MPL-2.0 AND MIT", "AGPL-3.0", "Mozilla Public License 2.0"):
        assert supply.COPYLEFT.search(text), text
    for text in ("MIT", "Apache-2.0", "BSD-3-Clause", "Python Software Foundation License", "HPND", "Apache-2.0 WITH LLVM-exception"):
        assert not supply.COPYLEFT.search(text), text


def test_nothing_required_is_copyleft(supply):
    for name, dist in supply.closure(supply.project()[""]).items():
        assert name in supply.ALLOWED or not supply.COPYLEFT.search(supply.licence(dist)), f"{name}: {supply.licence(dist)}"


# --- what is shipped ---


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wheel and sdist."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=ROOT, check=True, capture_output=True)
    return {path.suffix: path for path in out.iterdir()}


def test_the_wheel_carries_what_runs_and_nothing_else(built):
    names = set(zipfile.ZipFile(built[".whl"]).namelist())
    presets = {f"spyolo/presets/{path.name}" for path in (ROOT / "spyolo" / "presets").glob("*.yaml")}
    assert {"spyolo/py.typed", "spyolo/trainer.py", "spyolo/app/page.py"} | presets <= names
    assert not any(re.search(r"(^|/)(tests|runs|data|\.venv)/|\.pyc$|\.env", name) for name in names if not name.startswith("spyolo/data/"))
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_carries_sources_tests_and_docs(built):
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "Makefile", "tests/test_supply.py", "docs/training.md", "tools/train.py"} <= names
    assert {".ci/run", ".ci/supply.py", ".ci/requirements.lock"} <= names  # tests above need them


class Installed:
    """A virtual environment with the wheel and, by a path, what it needs: nothing is fetched."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, with_pip=False)
        self.folder, self.bin = folder, folder / "bin"
        site = next((folder / "lib").glob("python3*")) / "site-packages"
        needed = [path for path in sys.path if path.endswith("site-packages")]
        (site / "shared.pth").write_text("".join(f"{path}\n" for path in needed))
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True, capture_output=True, text=True)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run([str(self.bin / command[0]), *command[1:]], cwd=self.folder, env=clean, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    pytest.importorskip("pip")
    return Installed(tmp_path_factory.mktemp("clean") / "env", built[".whl"])


def test_the_tools_run_where_only_the_wheel_is_installed(installed):
    where = installed.run("python", "-c", "import spyolo; print(spyolo.__file__)").stdout
    assert where.startswith(str(installed.folder))
    assert "usage: train" in installed.run("spyolo", "train", "--help").stdout
    assert installed.run("spyolo", "train", "--leraning-rate", "1").returncode == 2
    drawn = installed.run("spyolo", "make_sample", "--out", "data", "--pictures", "5")
    assert drawn.returncode == 0, drawn.stderr
    assert len(list((installed.folder / "data" / "VOCdevkit" / "VOC2007" / "JPEGImages").iterdir())) == 5
    listed = installed.run("spyolo", "--help").stdout
    for name in ("train", "eval", "predict", "demo", "convert_weights"):
        assert f"\n  {name} " in listed


@pytest.mark.slow
def test_training_prediction_and_the_demo_s_page_from_the_wheel(installed):
    data = installed.run("spyolo", "make_sample", "--out", "more", "--pictures", "10")
    assert data.returncode == 0, data.stderr
    tiny = ["--width", "0.05", "--size", "64", "--timesteps", "1", "--epochs", "1", "--workers", "0", "--batch", "4", "--recalibrate", "0"]
    trained = installed.run("spyolo", "train", "--data", "more", "--classes", "sample", "--out", "run", *tiny)
    assert trained.returncode == 0, trained.stderr
    picture = next((installed.folder / "more" / "VOCdevkit" / "VOC2007" / "JPEGImages").iterdir())
    seen = installed.run("spyolo", "predict", "--weights", "run/best.safetensors", "--source", str(picture), "--out", "seen")
    assert seen.returncode == 0 and (installed.folder / "seen" / f"{picture.stem}.jpg").exists()
    assert installed.run("python", "-c", "import spyolo.app.page").returncode == 0


USER = """
import numpy as np
import spyolo

def boxes(path: str) -> list[float]:
    predictor = spyolo.Predictor.load(path)
    found = predictor.predict(np.zeros((8, 8, 3), np.uint8))
    reveal_type(found.scores)
    wrong: int = predictor.classes
    return found.scores.tolist()
"""


@pytest.mark.slow
def test_types_are_shipped(installed):
    """A type checker sees our types from outside: it finds the one error there is."""
    pytest.importorskip("mypy")
    (installed.folder / "user.py").write_text(USER)
    options = ["--strict", "--python-executable", str(installed.bin / "python"), "--cache-dir", "mypy_cache"]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    how = {"cwd": installed.folder, "env": clean, "capture_output": True, "text": True}
    told = subprocess.run([sys.executable, "-m", "mypy", *options, "user.py"], **how).stdout
    assert 'Revealed type is "torch._tensor.Tensor"' in told
    errors = [line for line in told.splitlines() if ": error:" in line]
    assert len(errors) == 1 and "user.py:9" in errors[0] and 'has type "tuple[str, ...]"' in errors[0], told
