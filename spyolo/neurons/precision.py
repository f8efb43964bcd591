"""Mixed precision: where matrix products and convolutions may be bf16. States, losses and weights stay as wide as they are."""

from __future__ import annotations

import platform
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """bf16 autocast where `amp` says `bf16`, else nothing. It keeps bf16 copies of the weights until it ends: no update inside."""
    return torch.autocast(device.type, torch.bfloat16) if amp == "bf16" else nullcontext()


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bf16. One without imitates them, a CPU at a tenth of the speed of fp32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):  # AVX-512 BF16; every CPU with AMX has it too
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


def choose_amp(amp: str, device: torch.device) -> str:
    """`auto` is `bf16` where the device computes in it, else `none`. Warns where `bf16` is asked of a device that imitates it."""
    if amp == "auto":
        return "bf16" if has_bf16(device) else "none"
    if amp == "bf16" and not has_bf16(device):
        warnings.warn(f"this {device.type} has no bf16 instructions and imitates them, slower than fp32; amp none is faster", stacklevel=3)
    return amp
