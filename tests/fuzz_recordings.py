"""Sound files of each kind that the sequence tasks and the event cameras read, and the readers of them."""

from __future__ import annotations

import gzip
import importlib.util
import io
import struct
import wave
from pathlib import Path

import numpy as np
from fuzz_kinds import Kind

from spyolo.data.events_boxes import read_boxes, write_boxes
from spyolo.data.events_dat import EVENT, EventFile, write_dat
from spyolo.sequence.readers.aedat2 import read_aedat2
from spyolo.sequence.readers.aedat3 import HEAD, read_labels, read_window
from spyolo.sequence.readers.events import Events
from spyolo.sequence.readers.idx import read_idx
from spyolo.sequence.readers.nmnist import Recordings, read_bin
from spyolo.sequence.readers.pianoroll import read_rolls
from spyolo.sequence.readers.sound import read_wav
from spyolo.sequence.readers.text import read_corpus


def aedat2(folder: Path) -> list[bytes]:
    events = b"".join(struct.pack(">II", k * 37 % 32768, 1000 * k) for k in range(40))
    return [b"#!AER-DAT2.0\r\n# a comment\r\n" + events, b"#!AER-DAT2.0\r\n"]


def aedat3(folder: Path) -> list[bytes]:
    body = b"".join(struct.pack("<II", 1 | (k & 1) << 1 | (k % 128) << 2 | (k % 100) << 17, 1000 * k) for k in range(30))
    packet = np.array([(1, 0, 8, 4, 0, 30, 30, 30)], HEAD).tobytes() + body
    other = np.array([(2, 0, 8, 4, 0, 2, 2, 2)], HEAD).tobytes() + bytes(16)
    return [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + other + packet, b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + packet]


def gesture_labels(folder: Path) -> list[bytes]:
    return [b"class,startTime_usec,endTime_usec\n1,100,200\n11,300,400\n"]


def idx(folder: Path) -> list[bytes]:
    return [b"\x00\x00\x08\x03" + struct.pack(">III", 2, 3, 4) + bytes(range(24)), b"\x00\x00\x08\x01" + struct.pack(">I", 3) + b"abc"]


def idx_gz(folder: Path) -> list[bytes]:
    return [gzip.compress(content) for content in idx(folder)]


def nmnist_bin(folder: Path) -> list[bytes]:
    return [b"".join(bytes([k % 34, k % 30, (k & 1) << 7, k, 5]) for k in range(30)) + bytes([0, 240, 0, 200, 0])]


def nmnist_npz(folder: Path) -> list[bytes]:
    arrays = {"t": np.arange(6), "x": np.zeros(6, np.uint8), "y": np.zeros(6, np.uint8), "p": np.zeros(6, np.uint8),
              "offsets": np.array([0, 2, 6]), "label": np.array([3, 4])}  # fmt: skip
    made = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **{f"train_{name}": array for name, array in arrays.items()})
        made.append(out.getvalue())
    return made


def rolls(folder: Path) -> list[bytes]:
    from scipy.io import savemat

    pieces = np.empty((1, 2), object)
    for k in range(2):
        pieces[0, k] = np.eye(88, dtype=np.uint8)[: 4 + k]
    made = []
    for compressed in (False, True):
        out = io.BytesIO()
        savemat(out, {f"{split}data": pieces for split in ("train", "valid", "test")}, do_compression=compressed)
        made.append(out.getvalue())
    return made


def sounds(folder: Path) -> list[bytes]:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(range(200)))
    return [out.getvalue()]


def texts(folder: Path) -> list[bytes]:
    return [("To be, or not to be: that is the question.\n" * 8).encode(), "käse くま\n".encode() * 40]


def prophesee(folder: Path) -> list[bytes]:
    events = np.zeros(50, EVENT)
    events["t"], events["x"], events["y"], events["p"] = np.arange(50) * 1000, np.arange(50) % 34, np.arange(50) % 20, np.arange(50) % 2
    write_dat(folder / "d", events)
    return [(folder / "d").read_bytes(), b"% Width 64\n% Height 48\n\x00\x08" + events[:0].tobytes()]


def timed_boxes(folder: Path) -> list[bytes]:
    write_boxes(folder / "b.npy", np.arange(4) * 1000, np.array([[1, 2, 30, 40]] * 4), np.array([0, 1, 1, 0]))
    return [(folder / "b.npy").read_bytes()]


def read_prophesee(path: Path) -> None:
    recording = EventFile(path)
    assert recording.frame(0, 40_000).shape == (2, recording.height, recording.width) and recording.duration >= 0


def finite(events: Events) -> None:
    assert len({len(column) for column in events}) == 1 and (np.diff(events.t) >= 0).all()


def read_npz(path: Path) -> None:
    recordings = Recordings(path, "train")
    for i in range(min(len(recordings), 50)):
        finite(recordings[i])


KINDS = {
    "AEDAT 2": Kind(aedat2, "r.aedat", lambda path: finite(read_aedat2(path)), 4),
    "AEDAT 3": Kind(aedat3, "r.aedat", lambda path: finite(read_window(path, 0, 10**9)), 6),
    "Prophesee events": Kind(prophesee, "r_td.dat", read_prophesee, 4),
    "Prophesee boxes": Kind(timed_boxes, "r_bbox.npy", lambda path: read_boxes(path, 2), 4),
    "gesture labels": Kind(gesture_labels, "l.csv", read_labels, 1),
    "IDX": Kind(idx, "i-ubyte", read_idx, 3),
    "IDX, gzipped": Kind(idx_gz, "i-ubyte.gz", read_idx, 3),
    "N-MNIST": Kind(nmnist_bin, "r.bin", lambda path: finite(read_bin(path)), 2),
    "N-MNIST, packed": Kind(nmnist_npz, "r.npz", read_npz, 4),
    "WAV": Kind(sounds, "s.wav", lambda path: read_wav(path, 8000), 3),
    "text": Kind(texts, "t.txt", lambda path: read_corpus(path, "word"), 2),
}
if importlib.util.find_spec("scipy"):
    KINDS["piano rolls"] = Kind(rolls, "p.mat", read_rolls, 4)
