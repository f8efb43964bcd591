"""Mixed precision: where matrix products and convolutions may be bf16. States, losses and weights stay as wide as they are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """bf16 autocast where `amp` says `bf16`, else nothing. It keeps bf16 copies of the weights until it ends: no update inside."""
    return torch.autocast(device.type, torch.bfloat16) if amp == "bf16" else nullcontext()
