"""What tools/bench measured, as text for docs/performance.md."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parent.parent / "tools" / "bench"
LOADING = {
    "data": "given", "batch": 8, "size": 416, "timesteps": 3, "workers": 0, "cpu_seconds_a_picture": 0.0257927, "seconds_a_picture_alone":
    0.0242456, "cached_s": 2.17876632, "loaded_s": 2.28229727, "ratio": 1.04751815,
}  # fmt: skip


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    for name in ("machine", "table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import table  # type: ignore[import-not-found]

    return table


def test_loading_is_told_in_rounded_figures(table: ModuleType):
    told = " ".join(table.loading(LOADING))
    assert "batch 8, T = 3, in the training process itself" in told and "a picture takes 24 ms, 26 ms of processor time" in told
    assert "takes 2.28 s, on a batch that is there already 2.18 s: 1.05 times" in told
    told = " ".join(table.loading(LOADING | {"workers": 1, "data": "sample set"}))
    assert "from the sample set" in told and "1 loader process)" in told


def test_every_result_has_a_formatter_and_the_machine_is_named(table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    import machine  # type: ignore[import-not-found]

    monkeypatch.chdir(tmp_path)
    machine.keep("loading", LOADING)
    table.main()
    told = capsys.readouterr().out
    assert "Loading from the data given" in told and f"PyTorch {machine.torch.__version__}" in told and "{" not in told.split("\n", 1)[1]
