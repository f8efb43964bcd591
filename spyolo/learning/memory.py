"""How much memory a piece of training needs: what autograd saves, what the allocator hands out, what the process holds."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class _MallInfo(ctypes.Structure):
    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in names)


def _mallinfo() -> Any:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):  # not glibc, or one before 2.33
        return None
    function.restype = _MallInfo
    return function


_glibc = _mallinfo()


def allocated(device: torch.device | str = "cpu") -> int:
    """Bytes that are handed out now: PyTorch's allocator on CUDA, malloc's on the CPU (where it cannot say, the process's)."""
    if torch.device(device).type == "cuda":
        return torch.cuda.memory_allocated(device)
    if _glibc is None:
        return process_memory()
    info = _glibc()
    return int(info.uordblks + info.hblkhd)


def process_memory(peak: bool = False) -> int:
    """Resident memory of this process in bytes, now or at its `peak` (since `reset_process_peak`). Linux; elsewhere 0."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def reset_process_peak() -> None:
    """Let the process's peak begin anew, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


class _Saved:
    """A tensor that autograd keeps; it is counted for as long as this lives, once a storage."""

    def __init__(self, meter: MemoryMeter, tensor: Tensor) -> None:
        self.meter, self.tensor = meter, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        meter.keep(self.key, self.size)

    def __del__(self) -> None:
        self.meter.drop(self.key, self.size)


class MemoryMeter(TorchDispatchMode):
    """Inside `with`, watches every operation: `saved` and `allocated` are peaks in bytes, the latter over what was handed out before.

    Args:
        known: tensors that do not count as saved: the weights.
        device: whose allocator.

    Attributes:
        operations: operations seen; `written`: numbers they wrote, a measure of elementwise work.
    """

    def __init__(self, known: list[Tensor], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.device = device
        self._known = {w.untyped_storage().data_ptr() for w in known}
        self._held: dict[int, int] = {}
        self._now = self.saved = self.allocated = self.operations = self.written = 0
        self._base = allocated(device)
        self._hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: _Saved(self, t), lambda s: s.tensor)

    def keep(self, key: int, size: int) -> None:
        if key in self._known:
            return
        self._held[key] = self._held.get(key, 0) + 1
        if self._held[key] == 1:
            self._now += size
            self.saved = max(self.saved, self._now)

    def drop(self, key: int, size: int) -> None:
        if key in self._held:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self._now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        new = out.numel() if isinstance(out, Tensor) and not out._is_view() else 0
        self.written += new
        if self.operations % 8 == 0 or new * 200 > self.allocated:  # malloc takes its time to tell: ask when it matters
            self.sample()
        return out

    def sample(self) -> None:
        self.allocated = max(self.allocated, allocated(self.device) - self._base)

    def watch_saved(self) -> Any:
        """A context in which saved tensors are counted, without watching operations (which takes time)."""
        return self._hooks
