"""AEDAT 2, the format of CIFAR10-DVS: a text header, then pairs of big-endian 32-bit words, address and microseconds.

The DVS128's address: bit 0 polarity, bits 1-7 x, bits 8-14 y. CIFAR10-DVS is turned as its own Matlab reader turns it: column 127 - y,
row 127 - x, polarity inverted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spyolo.errors import InputError
from spyolo.files import read_limited
from spyolo.sequence.readers.events import Events, checked

SIDE = 128  # of the DVS128, in pixels


def read_aedat2(path: Path) -> Events:
    """All events of a recording.

    Raises:
        InputError: not this format, cut off, of another sensor, or with a time that goes back.
    """
    try:
        data = read_limited(path, 1 << 30)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not data.startswith(b"#"):
        raise InputError(f"{path}: not an AEDAT 2 file (it starts with {data[:12]!r})")
    if data.startswith(b"#!AER-DAT") and not data.startswith(b"#!AER-DAT2"):
        raise InputError(f"{path}: {data[2:12].decode('ascii', 'replace').strip()}, where AER-DAT2 is expected")
    begin = 0
    while data[begin : begin + 1] == b"#":
        begin = data.find(b"\n", begin) + 1
        if not begin:
            raise InputError(f"{path}: cut off inside its header")
    if (len(data) - begin) % 8:
        raise InputError(f"{path}: cut off: {(len(data) - begin) % 8} bytes are left over behind the last whole event")
    words = np.frombuffer(data, ">u4", offset=begin).astype(np.int64).reshape(-1, 2)
    address, t = words[:, 0], words[:, 1]
    strange = address >> 15 != 0
    if strange.any():
        i = int(strange.argmax())
        raise InputError(f"{path}: event {i} has the address {address[i]:#x}, which a sensor of {SIDE} x {SIDE} does not have")
    return checked(Events(t, SIDE - 1 - (address >> 8 & 0x7F), SIDE - 1 - (address >> 1 & 0x7F), 1 - (address & 1)), SIDE, SIDE, path)
