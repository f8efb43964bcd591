"""Event files in their official formats: what is read, and what is said of a damaged one."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from official_files import aedat2_bytes, aedat3_bytes, nmnist_bytes, refused

from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.readers.aedat2 import read_aedat2
from spyolo.sequence.readers.aedat3 import read_labels, read_window
from spyolo.sequence.readers.events import Events, frame_numbers, to_frames
from spyolo.sequence.readers.nmnist import Recordings, read_bin
from spyolo.sequence.tasks import build_task
from spyolo.sequence.tasks.event_sets import CIFAR10, CIFAR10DVS, NMNIST, DVSGesture

GESTURE = [(100, 3, 4, 1), (150, 127, 0, 0), (150, 5, 9, 1), (400, 0, 127, 0)]


def listed(events: Events) -> list[tuple[int, int, int, int]]:
    return list(zip(*(v.tolist() for v in events)))


def peak(call: Callable[[], object]) -> int:
    """Bytes that Python and numpy held at most, over what there was before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- AEDAT 3.1 ---


def test_gesture_events_are_read_packet_by_packet(tmp_path):
    path = tmp_path / "user.aedat"
    path.write_bytes(aedat3_bytes([GESTURE[:2], GESTURE[2:]]))
    assert listed(read_window(path, 0, 1000)) == GESTURE
    assert listed(read_window(path, 150, 400)) == GESTURE[1:3]  # the end is not in it
    assert not listed(read_window(path, 500, 900))


def test_a_window_of_a_long_recording_takes_the_memory_of_a_short_one(tmp_path):
    """Packets before it, of other kinds and after it: 600 times the window, and no more memory."""
    whole = aedat3_bytes([[(t, 3, 4, 1)] * 1000 for t in (100, 200, 300)])
    size = 28 + 8000
    head, body = whole[: -3 * size], whole[-3 * size :]
    before, inside, after = body[:size], body[size : 2 * size], body[2 * size :]
    special = struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1000, 1000, 1000) + bytes(8000)
    peaks = []
    for times in (1, 200):
        path = tmp_path / f"{times}.aedat"
        path.write_bytes(head + times * (before + special) + inside + times * after)
        assert len(read_window(path, 150, 250).t) == 1000
        peaks.append(peak(lambda path=path: read_window(path, 150, 250)))
    assert peaks[1] < 1.1 * peaks[0] < path.stat().st_size / 10


def test_time_stamps_that_ran_over_go_on(tmp_path):
    path = tmp_path / "user.aedat"
    path.write_bytes(aedat3_bytes([GESTURE], overflow=1))
    assert read_window(path, 0, 1 << 40).t.tolist() == [t + (1 << 31) for t, *_ in GESTURE]


def test_packets_of_another_kind_and_events_marked_invalid_are_passed_over(tmp_path):
    path = tmp_path / "user.aedat"
    special = struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)
    whole = aedat3_bytes([GESTURE])
    head = whole.index(b"END-HEADER\r\n") + 12
    invalid = bytearray(whole[head:])
    invalid[28] &= 0xFE  # bit 0 of the first event
    path.write_bytes(whole[:head] + special + bytes(invalid))
    assert listed(read_window(path, 0, 1000)) == GESTURE[1:]


def test_gesture_files_that_are_damaged(tmp_path):
    path = tmp_path / "user.aedat"
    good = aedat3_bytes([GESTURE])
    for cut, said in ((len(good) - 3, "cut off: a packet announces 32 bytes, 29 are left"), (len(good) - 40, "inside the head")):
        path.write_bytes(good[:cut])
        assert said in refused(read_window, path, 0, 1000)
    path.write_bytes(good[:20])
    assert "has no end" in refused(read_window, path, 0, 1000)
    path.write_bytes(aedat2_bytes([]))
    assert "not an AEDAT 3 file" in refused(read_window, path, 0, 1000)
    path.write_bytes(aedat3_bytes([[(1, 128, 0, 1)]]))
    assert "event 0 is at x 128, y 0, beside a sensor of 128 x 128" in refused(read_window, path, 0, 1000)
    path.write_bytes(aedat3_bytes([GESTURE[:2], [(120, 1, 1, 1)]]))
    assert "time goes back at event 2, from 150 to 120 microseconds" in refused(read_window, path, 0, 1000)
    assert "cannot be read" in refused(read_window, tmp_path / "none.aedat", 0, 1)


def test_gesture_labels(tmp_path):
    path = tmp_path / "user_labels.csv"
    path.write_text("class,startTime_usec,endTime_usec\n1,100,400\n11,500,900\n")
    assert [tuple(g) for g in read_labels(path)] == [(0, 100, 400), (10, 500, 900)]
    for line, said in (("12,1,2", "class 12"), ("1,5,5", "no gesture"), ("1,5", "line 2: expected class,start,end"), ("a,1,2", "'a,1,2'")):
        path.write_text(f"class,startTime_usec,endTime_usec\n{line}\n")
        assert said in refused(read_labels, path)


@pytest.mark.parametrize("text", ["", "class,startTime_usec,endTime_usec\n", "3,0,1000\n5,150,300\n"])
def test_gesture_labels_without_a_head_or_a_gesture_are_refused(tmp_path, text):
    (tmp_path / "user_labels.csv").write_text(text)
    assert "user_labels.csv: expected a line class,startTime_usec,endTime_usec and a line for each" in refused(
        read_labels, tmp_path / "user_labels.csv"
    )


def test_a_gesture_set(tmp_path):
    for name in ("user01_led", "user24_led"):
        (tmp_path / f"{name}.aedat").write_bytes(aedat3_bytes([GESTURE]))
        (tmp_path / f"{name}_labels.csv").write_text("class,startTime_usec,endTime_usec\n3,0,1000\n5,150,300\n")
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (tmp_path / "trials_to_test.txt").write_text("user24_led.aedat\n")
    task = DVSGesture(tmp_path, 2, "count")
    batch = task.train_batch([0, 1], epoch=0)
    assert (task.samples, task.tests, task.inputs) == (2, 2, (2, 128, 128))
    assert batch.targets.tolist() == [2, 4] and batch.inputs.shape == (2, 2, 2, 128, 128)
    assert batch.input(0).sum((1, 2, 3)).tolist() == [2, 1] and batch.input(1)[0, 0, 127, 0] == 1
    (tmp_path / "user01_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n3,0,1000\n5,9150,9300\n")
    late = DVSGesture(tmp_path, 2, "count")
    assert "user01_led.aedat, 9150 to 9300 microseconds) has no events: blank frames" in refused(late.train_batch, [0, 1], 0)
    (tmp_path / "trials_to_train.txt").write_bytes(b"\xff\xfe")
    assert "trials_to_train.txt: no list of recordings" in refused(DVSGesture, tmp_path, 2, "count")
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (tmp_path / "user24_led.aedat").unlink()
    assert "user24_led.aedat: this recording of trials_to_test.txt is missing" in refused(DVSGesture, tmp_path, 2, "count")
    assert "trials_to_train.txt: cannot be read" in refused(DVSGesture, tmp_path / "x", 2, "count")


# --- AEDAT 2 ---


def test_cifar10_dvs_is_turned_as_its_own_reader_does(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat2_bytes([(7, 10, 20, 1), (7, 127, 0, 0), (9, 0, 127, 1)]))
    assert listed(read_aedat2(path)) == [(7, 107, 117, 0), (7, 127, 0, 1), (9, 0, 127, 0)]


def test_cifar10_dvs_files_that_are_damaged(tmp_path):
    path = tmp_path / "a.aedat"
    good = aedat2_bytes([(7, 10, 20, 1), (9, 0, 1, 1)])
    path.write_bytes(good[:-3])
    assert "cut off: 5 bytes are left over" in refused(read_aedat2, path)
    path.write_bytes(good[:15])
    assert "cut off inside its header" in refused(read_aedat2, path)
    path.write_bytes(aedat2_bytes([(7, 1, 1, 1), (6, 1, 1, 1)]))
    assert "time goes back at event 1" in refused(read_aedat2, path)
    path.write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">II", 1 << 15, 3))
    assert "address 0x8000" in refused(read_aedat2, path)
    path.write_bytes(aedat3_bytes([GESTURE]))
    assert "AER-DAT3.1, where AER-DAT2 is expected" in refused(read_aedat2, path)
    path.write_bytes(b"")
    assert "not an AEDAT 2 file" in refused(read_aedat2, path)


def test_a_cifar10_dvs_set_holds_out_the_last_tenth_by_number(tmp_path):
    for name in CIFAR10:
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"cifar10_{name}_{i}.aedat").write_bytes(aedat2_bytes([(1, i, 3, 1)]))
    task = CIFAR10DVS(tmp_path, 1, "time")
    assert (task.samples, task.tests) == (90, 10)
    assert {path.stem[-1] for path, _ in task.files["test"]} == {"9"}
    assert task.test_batch([3]).targets.tolist() == [3]
    assert "one folder a class" in refused(CIFAR10DVS, tmp_path / "cat", 1, "time")


# --- N-MNIST ---


def test_nmnist_events(tmp_path):
    path = tmp_path / "1.bin"
    events = [(0, 1, 2, 1), (70_000, 33, 33, 0), (300_000, 0, 5, 1)]
    path.write_bytes(nmnist_bytes(events))
    assert listed(read_bin(path)) == events


def test_an_overflow_event_moves_all_later_times(tmp_path):
    path = tmp_path / "1.bin"
    path.write_bytes(nmnist_bytes([(5, 1, 2, 1), (0, 0, 240, 0), (6, 3, 4, 0)]))
    assert listed(read_bin(path)) == [(5, 1, 2, 1), (6 + 8192, 3, 4, 0)]


def test_nmnist_files_that_are_damaged(tmp_path):
    path = tmp_path / "1.bin"
    path.write_bytes(nmnist_bytes([(0, 1, 2, 1)])[:-1])
    assert "cut off: 4 bytes" in refused(read_bin, path)
    path.write_bytes(nmnist_bytes([(0, 34, 2, 1)]))
    assert "beside a sensor of 34 x 34" in refused(read_bin, path)
    path.write_bytes(nmnist_bytes([(9, 3, 2, 1), (8, 3, 2, 1)]))
    assert "time goes back" in refused(read_bin, path)
    assert "cannot be read" in refused(read_bin, tmp_path / "none.bin")


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for split in ("train", "test"):
        found |= {f"{split}_{k}": np.array([1, 2, 3, 4, 5]) for k in ("x", "y", "t")} | {f"{split}_p": np.array([0, 1, 0, 1, 1])}
        found |= {f"{split}_offsets": np.array([0, 2, 5]), f"{split}_label": np.array([7, 3])}
    return found | changes


def test_nmnist_as_arrays_is_the_same_task_as_from_files(tmp_path):
    np.savez(tmp_path / "small.npz", **arrays())
    packed = NMNIST(tmp_path, 2, "time")
    for split in ("Train", "Test"):
        for digit in range(10):
            (tmp_path / "files" / split / str(digit)).mkdir(parents=True)
            (tmp_path / "files" / split / str(digit) / "00001.bin").write_bytes(nmnist_bytes([(3, 3, 3, 0), (4, 4, 4, 1), (5, 5, 5, 1)]))
    files = NMNIST(tmp_path / "files", 2, "time")
    assert (packed.samples, files.samples) == (2, 10)
    assert packed.train_batch([1], 0).targets.tolist() == [3] == files.train_batch([3], 0).targets.tolist()
    assert packed.train_batch([1], 0).inputs.equal(files.train_batch([3], 0).inputs)


@pytest.mark.parametrize("packed", [False, True])
def test_limits_take_some_of_each_class_though_files_lie_class_by_class(tmp_path, packed):
    labels = np.repeat(np.arange(10), 3)
    if packed:
        one = {"x": 1 + 0 * labels, "y": 1 + 0 * labels, "t": 1 + 0 * labels, "p": 0 * labels, "label": labels, "offsets": np.arange(31)}
        np.savez(tmp_path / "all.npz", **{f"{split}_{k}": v for split in ("train", "test") for k, v in one.items()})
    else:
        for split in ("Train", "Test"):
            for i, label in enumerate(labels):
                (tmp_path / split / str(label)).mkdir(parents=True, exist_ok=True)
                (tmp_path / split / str(label) / f"{i}.bin").write_bytes(nmnist_bytes([(3, 3, 3, 0)]))
    whole = SequenceConfig().updated({"task": "nmnist", "data": str(tmp_path), "timesteps": 1})
    task = build_task(whole.updated({"limit": 20, "test_limit": 10}))
    assert sorted(task.train_batch(list(range(task.samples)), 0).targets.tolist()) == sorted(2 * list(range(10)))
    assert sorted(torch.cat([b.targets for b in task.test_batches(4)]).tolist()) == list(range(10))
    again = build_task(whole.updated({"limit": 20, "seed": 9}))
    assert again.orders["train"] == task.orders["train"] and sorted(again.orders["train"]) == list(range(30)) and again.tests == 30
    assert build_task(whole).train_batch(list(range(30)), 0).targets.tolist() == labels.tolist()  # without a limit as the files lie


def test_nmnist_arrays_that_do_not_fit_together(tmp_path):
    path = tmp_path / "small.npz"
    for changes, said in (
        ({"train_label": np.array([1])}, "1 labels for 2 recordings"),
        ({"train_x": np.array([1])}, "differ in length"),
        ({"train_offsets": np.array([0, 2, 6])}, "offsets"),
        ({"train_offsets": np.array([0, 7, 5], np.uint64)}, "offsets"),
        ({"train_t": np.array([1, 0, 3, 4, 5])}, "time goes back"),
        ({"train_y": np.array([1, 99, 3, 4, 5])}, "beside a sensor"),
        ({"train_p": np.array([1, -1, 1, 1, 1])}, "event 1 has the polarity -1; 0 and 1 are wanted"),
        ({"train_label": np.array([7, 12])}, "recording 1 of train has the label 12; 0 to 9 are wanted"),
        ({"train_label": np.array([-1, 3])}, "recording 0 of train has the label -1"),
        ({"train_label": np.array([], int), "train_offsets": np.array([0])}, "train has no recordings"),
    ):
        np.savez(path, **arrays(**changes))
        assert said in refused(lambda: Recordings(path, "train")[0])
    np.savez(path, **{k: v for k, v in arrays().items() if k != "train_p"})
    assert "train_p is missing" in refused(Recordings, path, "train")
    path.write_bytes(b"nonsense")
    assert "not readable as .npz" in refused(Recordings, path, "train")


# --- frames ---


@st.composite
def recordings(draw) -> Events:
    count = draw(st.integers(0, 60))
    t = np.sort(np.array(draw(st.lists(st.integers(0, 10_000), min_size=count, max_size=count)), np.int64))
    x, y, p = (np.array(draw(st.lists(st.integers(0, top), min_size=count, max_size=count)), np.int64) for top in (6, 4, 1))
    return Events(t, x, y, p)


@given(recordings(), st.integers(1, 9), st.sampled_from(["time", "count"]), st.integers(1, 3))
def test_no_event_is_lost_between_the_frames(events, frames, by, shrink):
    found = to_frames(events, frames, 5, 7, by, shrink)
    assert found.shape == (frames, 2, -(-5 // shrink), -(-7 // shrink)) and found.sum() == len(events.t)
    numbers = frame_numbers(events, frames, by)
    assert (np.diff(numbers) >= 0).all()
    for f, p in ((f, p) for f in range(frames) for p in (0, 1)):
        assert found[f, p].sum() == ((numbers == f) & (events.p == p)).sum()


def test_frames_by_time_and_by_count():
    events = Events(np.array([0, 1, 2, 9]), *(np.zeros(4, np.int64),) * 3)
    assert frame_numbers(events, 2, "time").tolist() == [0, 0, 0, 1]
    assert frame_numbers(events, 2, "count").tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="time or count"):
        frame_numbers(events, 2, "space")


# --- batches ---


@pytest.mark.parametrize("kind", ["N-MNIST", "CIFAR10-DVS", "DVS-Gesture"])
def test_a_batch_takes_the_memory_of_its_frames_and_one_recording(tmp_path, kind):
    """However many recordings the batch, and the batches before it, are made of."""
    events = [(7, 3, 4, 1)] * 20000
    if kind == "N-MNIST":
        for folder in (tmp_path / split / str(label) for split in ("Train", "Test") for label in range(10)):
            folder.mkdir(parents=True)
            (folder / "0.bin").write_bytes(nmnist_bytes(events[:1]) * len(events))
        task = NMNIST(tmp_path, 2, "count")
    elif kind == "CIFAR10-DVS":
        data = aedat2_bytes(events)
        for folder in (tmp_path / name for name in CIFAR10):
            folder.mkdir()
            for i in range(2):
                (folder / f"{i}.aedat").write_bytes(data)
        task = CIFAR10DVS(tmp_path, 2, "count", shrink=8)
    else:
        (tmp_path / "a.aedat").write_bytes(aedat3_bytes([events]))
        (tmp_path / "a_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + "3,0,1000\n" * 10)
        for name in ("trials_to_train.txt", "trials_to_test.txt"):
            (tmp_path / name).write_text("a.aedat\n")
        task = DVSGesture(tmp_path, 2, "count", shrink=8)
    one, ten = (peak(lambda n=n: task.train_batch(list(range(n)), 0)) for n in (1, 10))
    frames = task.train_batch([0], 0).inputs.nbytes
    assert frames < 0.05 * one and ten - 10 * frames < 1.05 * (one - frames)
    many = peak(lambda: [len(task.train_batch([i], 0).inputs) for i in range(10)])
    assert many < 1.05 * one
