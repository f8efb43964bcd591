"""What a figure of time was taken on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """`processor` (of a GPU: its name), `threads` (of PyTorch, on the CPU) and `torch`, its version."""
    gpu = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else processor()
    return {"processor": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def processor() -> str:
    """The CPU's name as the system tells it; on Linux `platform` knows only the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine() or "unknown"
