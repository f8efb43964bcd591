"""The LTC step as compiled C++: see native.cpp. Built once per machine with its own C++ compiler, into the user's cache.

`library()` is None where that cannot be, and `why_not()` says why; callers then take torch's operations.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast", "-std=c++17", "-Wno-psabi", "-shared", "-fPIC")
STEPS = {
    (torch.bfloat16, torch.bfloat16): "ltc_bf16_bf16",
    (torch.bfloat16, torch.uint8): "ltc_bf16_u8",
    (torch.float32, torch.float32): "ltc_f32_f32",
    (torch.float32, torch.uint8): "ltc_f32_u8",
    (torch.float64, torch.float64): "ltc_f64_f64",
}  # (current, spikes) -> function; membranes are fp32, or fp64 in the last
SPANS = {
    (torch.bfloat16, torch.float32): "span_bf16",
    (torch.float32, torch.float32): "span_f32",
    (torch.float64, torch.float64): "span_f64",
}  # (products, membranes) -> the functions _forward, _back and _through
POINTER, WHOLE, REAL, COUNT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_int


class Span(ctypes.Structure):
    """What the functions of `SPANS` are told, as native.cpp has it: addresses of dense tensors, then numbers. `span_steps.py` fills it."""

    ADDRESSES = ("both", "logit", "spikes", "u", "tau", "on_c", "on_l", "on_s", "through", "on_u", "on_v", "from_s", "from_u", "psi")
    NUMBERS = ("steps", "batch", "n", "first", "detach_reset", "recurrent", "threads")
    _fields_ = [*((name, POINTER) for name in ADDRESSES), ("threshold", REAL), *((name, WHOLE) for name in NUMBERS)]


def library() -> ctypes.CDLL | None:
    """The compiled functions, or None."""
    return _load()[0]


def why_not() -> str:
    """Why there is no library; empty where there is one."""
    return _load()[1]


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("SPYOLO_NATIVE") == "0":
        return None, "SPYOLO_NATIVE=0"
    compiler = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None, "no C++ compiler (c++, g++ or clang++) is installed"
    try:
        found = ctypes.CDLL(str(build(compiler)))
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or error.stderr.splitlines() or ["no message"]
        return None, f"{compiler} cannot build it: {lines[0].strip()[:200]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{type(error).__name__}: {error}"
    for name in STEPS.values():
        function = getattr(found, name)
        function.argtypes = [*[POINTER] * 8, *[WHOLE] * 3, REAL, *[WHOLE] * 4, COUNT]  # type: ignore[assignment]
        function.restype = None
    for name in SPANS.values():
        for part in ("forward", "back", "through"):
            function = getattr(found, f"{name}_{part}")
            function.argtypes, function.restype = [ctypes.POINTER(Span), WHOLE], None
    found.add_bf16.argtypes, found.add_bf16.restype = [*[POINTER] * 3, WHOLE, COUNT], None  # type: ignore[assignment]
    found.pool.argtypes = [POINTER, WHOLE, WHOLE, POINTER, WHOLE, WHOLE, POINTER, WHOLE, WHOLE, WHOLE, COUNT]
    found.pool.restype = None
    return found, ""


def build(compiler: str) -> Path:
    """The library's file, made now if it is not there; named after all it depends on, so that nothing stale is ever loaded.

    Raises:
        OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired: it cannot be made.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    told = hashlib.blake2b("\n".join([version, *FLAGS, processor()]).encode() + SOURCE.read_bytes(), digest_size=8).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spyolo"
    file = folder / f"native-{told}.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".so")
        os.close(handle)
        try:
            subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", name], capture_output=True, text=True, timeout=300, check=True)
            os.replace(name, file)  # whole or not at all, whoever else builds it
        finally:
            Path(name).unlink(missing_ok=True)
    return file


def processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor() + platform.machine())


def ltc_layer(
    current: Tensor, u: Tensor | None, bias: Tensor, spikes: Tensor, threshold: float, *, kernel: Tensor | None = None,
    logit: Tensor | None = None, copy: Tensor | None = None, copy_from: int = 0,
) -> Tensor:  # fmt: skip
    """One step of a layer of LTC neurons, the gate included: writes `spikes` (and `copy`) and returns the membranes after the step.

    Args:
        current: [B, C, H, W], channels-last, C a multiple of 4; dtype as `STEPS` has them.
        u: membranes after the step before, [B, C, H, W] channels-last; None: at zero.
        bias: [C] of the gate, dtype of the membranes. Without `kernel` and `logit` it is the whole logit (a static gate).
        spikes: where they go: [B, C, H, W] channels-last, or channels of a wider map of that kind.
        kernel: depthwise 3x3 gate, [9, C], on current + u.
        logit: what any other gate said (before `bias`), like `current`.
        copy: second place for the spikes of the channels from `copy_from` on, a multiple of 4.
    """
    functions = library()
    assert functions is not None, why_not()
    n, c, h, w = current.shape
    assert c % 4 == 0 and copy_from % 4 == 0, (c, copy_from)
    assert all(x is None or x.shape == current.shape for x in (u, logit)), "read by address: nothing there would notice another shape"
    after = torch.empty_like(current, dtype=bias.dtype, memory_format=torch.channels_last)
    getattr(functions, STEPS[current.dtype, spikes.dtype])(
        current.data_ptr(), _pointer(logit), _pointer(u), _pointer(kernel), bias.data_ptr(), after.data_ptr(), spikes.data_ptr(),
        _pointer(copy), spikes.stride(3), 0 if copy is None else copy.stride(3), copy_from, threshold, n, h, w, c,
        torch.get_num_threads(),
    )  # fmt: skip
    return after


def add_bf16(x: Tensor, u: Tensor) -> Tensor:
    """bf16 x + fp32 u, rounded to bf16 once; both dense, of one layout."""
    functions = library()
    assert functions is not None, why_not()
    out = torch.empty_like(x)
    functions.add_bf16(x.data_ptr(), u.data_ptr(), out.data_ptr(), x.numel(), torch.get_num_threads())
    return out


def pool(a: Tensor, b: Tensor) -> Tensor:
    """2x2 maxima of two maps of spikes, joined along the channels: [B, C, H, W], [B, D, H, W] -> [B, C + D, H/2, W/2], channels-last."""
    functions = library()
    assert functions is not None, why_not()
    n, c, h, w = a.shape
    d, size = b.shape[1], a.element_size()
    out = torch.empty((n, c + d, h // 2, w // 2), dtype=a.dtype, memory_format=torch.channels_last)
    functions.pool(
        a.data_ptr(), a.stride(3) * size, c * size, b.data_ptr(), b.stride(3) * size, d * size, out.data_ptr(), n, h, w,
        torch.get_num_threads(),
    )  # fmt: skip
    return out


def span_steps(narrow: Tensor, wide: Tensor) -> tuple[Callable[[Span, int], None], ...] | None:
    """A step of a span forward, and the two halves of one back, for products and membranes like these; None: take torch's operations."""
    name, functions = SPANS.get((narrow.dtype, wide.dtype)), library() if narrow.device.type == "cpu" else None
    if name is None or functions is None:
        return None
    return tuple(getattr(functions, f"{name}_{part}") for part in ("forward", "back", "through"))


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
