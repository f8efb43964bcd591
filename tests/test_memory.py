"""Freed memory that is kept costs no page faults when it is used again."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from spyolo.memory import keep_freed_memory
kept = {keep} and keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):  # the heap grows until freed neighbours have joined
    torch.zeros(12_000_000)
before = faults()
for _ in range(5):
    torch.zeros(12_000_000)
print(int(kept), faults() - before)
"""


def faults(keep: bool) -> tuple[bool, int]:
    out = subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True).stdout
    kept, count = out.split()
    return kept == "1", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_tensors_reuse_their_pages():
    kept, few = faults(True)
    if not kept:
        pytest.skip("another C library")
    pages = 12_000_000 * 4 / 4096
    assert few < 2 * pages  # of five tensors; one may still find a gap and grow the heap
    assert faults(False)[1] > 4 * pages
