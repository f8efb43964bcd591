"""Which precision is taken where: a CPU that only imitates bf16 is never given it unasked, and says so when asked."""

from __future__ import annotations

import platform
import warnings
from pathlib import Path

import pytest
import torch

from spyolo.neurons import choose_amp, has_bf16, precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
@pytest.mark.parametrize("there", [True, False])
def test_x86_is_asked_for_its_instructions(monkeypatch: pytest.MonkeyPatch, machine: str, there: bool):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: there)
    assert has_bf16(CPU) is there


def test_a_torch_that_cannot_say_has_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not has_bf16(CPU)


def test_this_cpu_agrees_with_its_own_list():
    """The private question torch is asked, against the flags the kernel lists: a torch that drops or turns it is noticed here."""
    listed = Path("/proc/cpuinfo")
    flags = [line for line in listed.read_text(encoding="utf-8").splitlines() if line.startswith("flags")] if listed.exists() else []
    if not flags:
        pytest.skip("no flags listed here")
    assert has_bf16(CPU) == ("avx512_bf16" in flags[0].split())


@pytest.mark.parametrize("there, chosen", [(True, "bf16"), (False, "none")])
def test_auto(monkeypatch: pytest.MonkeyPatch, there: bool, chosen: str):
    monkeypatch.setattr(precision, "has_bf16", lambda device: there)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_amp("auto", CPU) == chosen and choose_amp("none", CPU) == "none"


def test_bf16_stays_what_was_asked_for_and_its_price_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    with pytest.warns(UserWarning, match="cpu has no bf16 instructions and imitates them"):
        assert choose_amp("bf16", CPU) == "bf16"
