"""Event recordings: files that are written here and read back, in windows, clips and whole."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import EVENT, make_recordings, moving_square

from spyolo.data import AugmentSettings, load_batches
from spyolo.data.events_boxes import read_boxes, write_boxes
from spyolo.data.events_clips import EventClips, EventPlayback
from spyolo.data.events_dat import EventFile, write_dat
from spyolo.data.events_set import EventSet, drawn
from spyolo.errors import InputError


@pytest.fixture
def events() -> np.ndarray:
    """A thousand events of a sensor of 20 x 10, ten microseconds apart."""
    rng = np.random.default_rng(0)
    found = np.zeros(1000, EVENT)
    found["t"] = 10 * np.arange(1000)
    found["x"], found["y"], found["p"] = rng.integers(20, size=1000), rng.integers(10, size=1000), rng.integers(2, size=1000)
    return found


@pytest.fixture
def dat(events, tmp_path) -> Path:
    write_dat(tmp_path / "a_td.dat", events, 20, 10)
    return tmp_path / "a_td.dat"


def test_events_are_read_as_they_were_written(dat, events):
    file = EventFile(dat)
    assert (file.width, file.height, file.count, file.duration) == (20, 10, 1000, 9990)
    assert np.array_equal(file.read(0, 1000), events) and np.array_equal(file.read(990, 100), events[990:]) and len(file.read(5000, 3)) == 0


def test_the_bytes_are_those_of_the_format(dat):
    """One event written out by hand: t, then x | y << 14 | p << 28."""
    one = np.array([(7, 303, 239, 1)], EVENT)
    write_dat(dat, one)
    content = dat.read_bytes()
    assert content.startswith(b"% Data file containing Event2D events.\n% Version 2\n") and b"% Height 240\n% Width 304\n" in content
    word = 303 | 239 << 14 | 1 << 28
    assert content[-10:] == bytes([12, 8]) + (7).to_bytes(4, "little") + word.to_bytes(4, "little")
    assert EventFile(dat).read(0, 1).tolist() == [(7, 303, 239, 1)]


def test_another_library_reads_the_same(dat, events):
    expelliarmus = pytest.importorskip("expelliarmus")
    told = expelliarmus.Wizard(encoding="dat").read(str(dat))
    assert all(np.array_equal(told[name], events[name]) for name in EVENT.names)


@pytest.mark.parametrize(("begin", "end"), [(0, 10_000), (995, 2005), (5, 6), (9990, 20_000), (20_000, 30_000)])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_windows_hold_their_events_whatever_is_read_at_a_time(dat, events, begin, end, size):
    found = list(EventFile(dat).chunks(begin, end, size))
    inside = events[(events["t"] >= begin) & (events["t"] < end)]
    assert all(0 < len(c) <= size for c in found)
    assert np.array_equal(np.concatenate([np.zeros(0, EVENT), *found]), inside)
    assert EventFile(dat).index_at(begin) == (events["t"] < begin).sum()


def test_a_frame_counts_events_by_polarity(dat, events):
    frame = EventFile(dat).frame(0, 5000, saturate=3)
    counts = np.zeros((2, 10, 20), int)
    np.add.at(counts, (events["p"][:500], events["y"][:500], events["x"][:500]), 1)
    assert frame.dtype == np.uint8 and np.array_equal(frame, np.minimum(counts, 3) * 85) and counts.max() > 3


def test_memory_does_not_grow_with_the_file(tmp_path):
    many = np.zeros(2_000_000, EVENT)
    many["t"] = np.arange(len(many))
    write_dat(tmp_path / "long_td.dat", many)
    assert (tmp_path / "long_td.dat").stat().st_size > 16e6
    tracemalloc.start()
    frame = EventFile(tmp_path / "long_td.dat").frame(0, 2_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frame[0, 0, 0] == 255 and peak < 8e6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b[:-3], "is cut off in the middle of an event (5 bytes too many)"),
        (lambda b: b[:40], "is no .dat file of events: a line of its header does not end"),
        (lambda b: b"", "type and size of its events are [], not"),
        (lambda b: b.replace(bytes([12, 8]), bytes([14, 8])), "type and size of its events are [14, 8]"),
        (lambda b: b.replace(b"Width 20", b"Width 0"), "its header says the sensor is 0 x 10"),
    ],
)
def test_files_that_are_none(dat, spoil, message):
    dat.write_bytes(spoil(dat.read_bytes()))
    with pytest.raises(InputError) as error:
        EventFile(dat)
    assert str(error.value).startswith(str(dat)) and message in str(error.value)


def test_events_that_cannot_be(dat, events):
    events["t"][500] = 3
    write_dat(dat, events, 20, 10)
    with pytest.raises(InputError, match="times run backwards near event 0"):
        EventFile(dat).frame(0, 10_000)
    events["t"][500], events["x"][3] = 5000, 20
    write_dat(dat, events, 20, 10)
    with pytest.raises(InputError, match="an event near 0 lies beside the sensor of 20 x 10"):
        EventFile(dat).frame(0, 10_000)
    with pytest.raises(InputError, match=r"none_td.dat cannot be read: No such file"):
        EventFile(dat.with_name("none_td.dat"))


# --- boxes ---


def test_boxes_are_read_in_order_of_time_from_files_of_both_ages(tmp_path):
    path = tmp_path / "a_bbox.npy"
    write_boxes(path, np.array([300, 100]), np.array([[1, 2, 11, 22], [5, 6, 7, 8]]), np.array([0, 1]))
    for _ in range(2):
        found = read_boxes(path, 2)
        assert found.times.tolist() == [100, 300] and found.labels.tolist() == [1, 0]
        assert found.boxes.tolist() == [[5, 6, 7, 8], [1, 2, 11, 22]]
        old = np.load(path)  # the other spelling of the first field
        old.dtype.names = ("ts", *old.dtype.names[1:])
        np.save(path, old)


def test_boxes_in_small_whole_numbers_do_not_wrap_round(tmp_path):
    fields = [("t", "<u8"), *((name, "u1") for name in ("x", "y", "w", "h", "class_id"))]
    np.save(tmp_path / "a_bbox.npy", np.array([(1, 200, 100, 100, 200, 0)], fields))
    assert read_boxes(tmp_path / "a_bbox.npy", 2).boxes.tolist() == [[200, 100, 300, 300]]


def test_boxes_that_are_none(tmp_path):
    path = tmp_path / "a_bbox.npy"
    for content, message in (
        (np.zeros((3, 4)), "field 't' is missing; its fields are none"),
        (np.array([object()]), "is no .npy file of boxes"),  # pickled: never read
    ):
        np.save(path, content, allow_pickle=True)
        with pytest.raises(InputError, match=message):
            read_boxes(path, 2)
    write_boxes(path, np.array([1]), np.array([[0, 0, 1, 1]]), np.array([2]))
    with pytest.raises(InputError, match="class 2 is none of the 2 classes in use"):
        read_boxes(path, 2)
    write_boxes(path, np.array([1]), np.array([[0, 0, np.nan, 1]]), np.array([0]))
    with pytest.raises(InputError, match="box 0 is not four numbers"):
        read_boxes(path, 2)
    with pytest.raises(InputError, match=r"b_bbox.npy does not exist; every recording NAME_td.dat needs its NAME_bbox.npy"):
        read_boxes(tmp_path / "b_bbox.npy", 2)


# --- sets of recordings ---


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("events"))


def test_a_set_knows_its_recordings_and_the_windows_with_truth(root):
    found = EventSet(root, "train", min_diagonal=0, min_side=0)
    assert [found.name(r) for r in range(len(found.recordings))] == ["train0", "train1", "train2"]
    assert found.windows(0) == 12 and found.ids[:3] == ["train0@3", "train0@7", "train0@11"] and len(found) == 9  # drawn each 200 ms
    i = found.index("train0@3")
    assert found.size(i) == (304, 240) and found.truth(0, 4) is None
    box = found.objects(i)
    assert box.labels.tolist() == [0] and torch.equal(box.boxes, torch.from_numpy(moving_square(0, 200_000)).float())
    # The events of a window lie on the object that its boxes, drawn at its end, enclose.
    x1, y1, x2, y2 = (int(v) for v in box.boxes[0])
    frame = found.frame(0, 3)
    inside = frame[y1 - 2 : y2 + 2, max(0, x1 - 12) : x2 + 2].astype(int).sum()
    assert frame.shape == (240, 304, 2) and inside == frame.astype(int).sum() > 0
    assert np.array_equal(drawn(frame)[..., 0], frame[..., 1]) and found.image(i).shape == (240, 304, 3)


def test_a_box_long_after_the_recording_is_told_instead_of_waited_for(root, tmp_path):
    there = Path(shutil.copytree(root, tmp_path / "events"))
    write_boxes(there / "train" / "train1_bbox.npy", np.array([1000, 1 << 55]), np.array([[0, 0, 9, 9]] * 2), np.array([0, 0]))
    with pytest.raises(InputError, match=rf"train1_bbox.npy: a box at {1 << 55} us, train1_td.dat ends at \d+ us"):
        EventSet(there, "train")


def test_small_boxes_are_difficult(root):
    found = EventSet(root, "train", min_diagonal=1000, min_side=0)
    assert all(found.objects(i).difficult.all() for i in range(len(found)))
    assert not any(found.objects(i).difficult.any() for found in [EventSet(root, "train")] for i in range(len(found)))


def test_splits_are_joined_and_bad_ones_told(root, tmp_path):
    assert len(EventSet(root, "train+val").recordings) == 5
    with pytest.raises(InputError, match=r"nothing holds no recording \(NAME_td.dat beside NAME_bbox.npy\)"):
        EventSet(root, "nothing")
    with pytest.raises(InputError, match="two recordings of val\\+val have one name"):
        EventSet(root, "val+val")


def test_clips_follow_each_other_and_hold_truth(root):
    clips = EventClips(EventSet(root, "train"), 64, length=4, preset="eval")
    assert [clip.clip_id for clip in clips][:3] == ["train0@0", "train0@4", "train0@8"] and len(clips) == 9
    clip = clips[1]
    assert clip.frames.shape == (4, 2, 64, 64) and clip.frames.dtype == torch.uint8
    assert [o is None for o in clip.objects] == [True, True, True, False]
    batch = next(iter(load_batches(clips, 0, batch_size=3)))
    assert batch.images.shape == (4, 3, 2, 64, 64) and len(batch.objects) == 4 and len(batch.objects[3]) == 3 and len(batch) == 3
    with pytest.raises(InputError, match="no run of 13 windows of 50 ms holds truth; make --timesteps smaller"):
        EventClips(EventSet(root, "train"), 64, length=13)


def test_a_clip_is_varied_as_a_whole_by_seed_epoch_and_place(root):
    def shown(seed: int, epoch: int) -> torch.Tensor:
        clips = EventClips(EventSet(root, "train"), 64, 4, seed=seed)
        clips.set_epoch(epoch)
        assert clips.preset == "train"
        return clips[0].frames

    assert torch.equal(shown(0, 1), shown(0, 1)) and not torch.equal(shown(0, 1), shown(0, 2)) and not torch.equal(shown(0, 1), shown(1, 1))
    found = EventSet(root, "train", min_side=0, min_diagonal=0)
    clips, unflipped = EventClips(found, 96, 4), EventClips(found, 96, 4, settings=AugmentSettings(flip=0))
    flips = set()
    for epoch in range(8):
        clips.set_epoch(epoch)
        unflipped.set_epoch(epoch)  # draws the same numbers, so that the flip alone differs
        clip, plain = clips[1], unflipped[1].frames
        flips.add(not torch.equal(clip.frames, plain))
        assert torch.equal(clip.frames, plain) or torch.equal(clip.frames, plain.flip(-1))
        seen = clip.frames[3].amax(0).nonzero().float()
        for x1, y1, x2, y2 in clip.objects[3].boxes.tolist():  # where a box is, there are events, also after a flip
            near = (seen[:, 1] > x1 - 6) & (seen[:, 1] < x2 + 6) & (seen[:, 0] > y1 - 3) & (seen[:, 0] < y2 + 3)
            assert near.float().mean() > 0.9
    assert flips == {True, False}


def test_playback_shows_recordings_side_by_side_from_their_start(root):
    found = EventSet(root, "train")
    play = EventPlayback(found, 64, together=2)
    assert [(group, w) for group, w in play.steps][:2] == [([0, 1], 0), ([0, 1], 1)] and len(play) == 24
    assert play[0].shape == (2, 2, 64, 64) and play[12].shape == (1, 2, 64, 64)
    fitted = EventClips(found, 64, 12, preset="eval")[0].frames
    assert torch.equal(play[5][0], fitted[5])
    played = list(load_batches(play, 0, sampler=[3, 4], batch_size=1))
    assert torch.equal(played[1], play[4])
