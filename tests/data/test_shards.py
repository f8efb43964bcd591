"""Shards: written from a VOC set, read like it, dealt so that each is read once; and what is told when one is missing."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from spyolo.cli import run
from spyolo.data import SAMPLE_CLASSES, DataWarning, DetectionDataset, VOCSet, load_batches
from spyolo.data.shard_fetching import ShardStore
from spyolo.data.shard_writing import make_shards
from spyolo.data.shards import FORMAT, ShardSet, _understood
from spyolo.distributed import ALONE, Peers
from spyolo.errors import InputError
from spyolo.shard_order import ShardOrder

wds = pytest.importorskip("webdataset")


@pytest.fixture(scope="module")
def voc(sample_root) -> VOCSet:
    return VOCSet(sample_root, "2007:train", SAMPLE_CLASSES)


@pytest.fixture(scope="module")
def root(voc, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    make_shards(voc, root / "train", per_shard=5)
    return root


def test_shards_hold_what_the_set_holds(voc, root):
    shards = ShardSet(root, "train", SAMPLE_CLASSES)
    assert [p.name for p in sorted((root / "train").iterdir())] == [*(f"{k:06d}.tar" for k in range(4)), "index.json"]
    assert len(shards) == len(voc) == 16 and list(shards.ids) == voc.ids and shards.ids[2:4] == voc.ids[2:4]
    for i in (15, 0, 7):
        assert np.array_equal(shards.image(i), voc.image(i)) and shards.size(i) == voc.size(i) and shards.index(voc.ids[i]) == i
        mine, theirs = shards.objects(i), voc.objects(i)
        assert all(torch.equal(getattr(mine, name), getattr(theirs, name)) for name in ("boxes", "labels", "difficult"))
    assert shards.span(7) == (5, 10) and shards.span(15) == (15, 16) and shards.image_path(7).name == "000001.tar"
    with pytest.raises(IndexError):
        shards.described(16)
    part = shards.subset([9, 3])
    assert list(part.ids) == [voc.ids[9], voc.ids[3]] and part.index(voc.ids[3]) == 1 and part.span(1) == (0, 2)
    with pytest.warns(DataWarning):
        fewer = ShardSet(root, "train", SAMPLE_CLASSES[:2])
    assert all(set(fewer.objects(i).labels.tolist()) <= {0, 1} for i in range(16))


def test_objects_of_other_classes_are_told(voc, root, tmp_path):
    names = [voc.classes[label] for i in range(len(voc)) for label in voc.objects(i).labels.tolist()]
    kept, left = SAMPLE_CLASSES[:2], sorted(SAMPLE_CLASSES[2:], key=names.count, reverse=True)
    with pytest.warns(DataWarning, match="objects of classes that are not in use are left out") as told:
        ShardSet(root, "train", kept)
    assert len(told) == 1 and str(told[0].message).count("(") == len(left)
    assert all(f"{name} ({names.count(name)})" in str(told[0].message) for name in left)
    index = json.loads((root / "train" / "index.json").read_text())
    del index["objects"]  # an index written before they were counted
    folder = spoiled(root, tmp_path)
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.warns(DataWarning, match=f"left out: {', '.join(SAMPLE_CLASSES[2:])}$"):
        ShardSet(tmp_path, "train", kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ShardSet(root, "train", SAMPLE_CLASSES)


@pytest.mark.parametrize("splits", ["train+train", "train+./train"])
def test_a_split_named_twice_is_refused(root, splits):
    with pytest.raises(InputError, match="names a split twice"):
        ShardSet(root, splits, SAMPLE_CLASSES)


@pytest.mark.parametrize("spoil", ["missing", "empty"])
def test_a_bad_picture_leaves_no_half_shards_behind(make_devkit, tmp_path, spoil):
    root, out = make_devkit({"a": [], "b": [], "c": []}), tmp_path / "shards"
    picture = root / "VOCdevkit/VOC2007/JPEGImages/c.jpg"
    content = picture.read_bytes()
    picture.unlink() if spoil == "missing" else picture.write_bytes(b"")
    with pytest.raises(InputError, match=r"c\.jpg (does not exist|.*the file is empty)"):
        make_shards(VOCSet(root, "2007:train"), out, per_shard=2)
    picture.write_bytes(content)
    assert len(make_shards(VOCSet(root, "2007:train"), out, per_shard=2)) == 2


def test_any_reader_of_webdatasets_can_stream_them(voc, root):
    samples = list(wds.WebDataset([str(p) for p in sorted((root / "train").glob("*.tar"))], shardshuffle=False))
    assert len(samples) == 16 and json.loads(samples[6]["json"])["id"] == voc.ids[6]
    assert samples[6]["jpg"] == voc.image_path(6).read_bytes()


def test_the_same_set_makes_the_same_bytes(voc, root, tmp_path):
    again = make_shards(voc, tmp_path / "again", per_shard=5)
    assert [p.read_bytes() for p in again] == [(root / "train" / p.name).read_bytes() for p in again]
    with pytest.raises(InputError, match="again is not empty; give another folder"):
        make_shards(voc, tmp_path / "again")


def test_training_pictures_are_the_same_by_seed_epoch_and_place(root):
    def batch(workers: int, preset: str = "mosaic") -> list[torch.Tensor]:
        dataset = DetectionDataset(ShardSet(root, "train", SAMPLE_CLASSES), 64, preset)
        dataset.set_epoch(3)
        return [b.images for b in load_batches(dataset, workers, batch_sampler=[[0, 8, 15], [4, 5]])]

    one, other = batch(0), batch(1)
    assert all(torch.equal(a, b) for a, b in zip(one, other))
    shards = ShardSet(root, "train", SAMPLE_CLASSES)
    shards.image(0)
    assert np.array_equal(pickle.loads(pickle.dumps(shards)).image(0), shards.image(0))  # as loader processes get it


def test_an_epoch_reads_each_shard_once_and_lanes_make_the_batches(root):
    starts = [0, 5, 10, 15, 16]
    whole = ShardOrder(starts, 4, seed=0, epoch=0)
    assert len(whole) == 4 and sorted(i for b in whole for i in b) == list(range(16))
    assert list(whole) == list(ShardOrder(starts, 4, 0, 0)) != list(ShardOrder(starts, 4, 0, 1))
    assert list(ShardOrder(starts, 4, 0, 0, first=2)) == list(whole)[2:]
    even = list(range(0, 81, 10))  # eight shards
    lanes = list(ShardOrder(even, 8, 0, 0, lanes=4))
    assert len(lanes) == 10 and all(len(b) == 8 for b in lanes)
    shares = [list(ShardOrder(even, 8, 0, 0, lanes=4, peers=Peers(rank, 2))) for rank in range(2)]
    assert [a + b for a, b in zip(*shares)] == lanes  # the same batches for any number of processes
    touched = [{i // 10 for b in share for i in b} for share in shares]
    assert not touched[0] & touched[1] and len(touched[0] | touched[1]) == 8  # and each reads shards of its own


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3, 3, 1], [5] * 33 + [2], list(range(9, 21))])
def test_every_epoch_has_as_many_batches_and_lanes_are_about_equal(sizes):
    """A short last shard, a number of shards that the lanes do not divide, shards of all lengths."""
    starts = np.cumsum([0, *sizes]).tolist()
    lengths, first = set(), []
    for epoch in range(20):
        order = ShardOrder(starts, 4, 0, epoch, lanes=4)
        places = [i for batch in order for i in batch]
        assert len(set(places)) == len(places) == 4 * order.per_epoch
        lengths.add((order.per_epoch, *sorted(len(stream) for stream in order.streams)))
        first.append(tuple(places[:8]))
        assert sorted(i for stream in order.streams for i in stream) == list(range(starts[-1]))
    assert len(lengths) == 1 and len(set(first)) == 20
    shortest, longest = next(iter(lengths))[1], next(iter(lengths))[-1]
    assert longest - shortest <= max(sizes)
    assert len(ShardOrder(starts, 4, 0, 0, most=2, lanes=4)) == 2


def test_norm_statistics_are_taken_from_few_shards(root, tiny_config, monkeypatch):
    """Or each evaluation would fetch most of those that are elsewhere."""
    from spyolo import builders

    config = tiny_config(source="shards", data=str(root), train="train", batch=4, recalibrate=1)
    monkeypatch.setattr("spyolo.shard_order.WINDOW", 1)
    seen, inner = set(), ShardSet.image
    monkeypatch.setattr(ShardSet, "image", lambda self, i: (seen.add(self.image_path(i).name), inner(self, i))[1])
    assert sum(len(batch.images) for batch in builders.calibration_batches(config, 0)) == 4
    assert len(seen) <= 2


def test_lanes_that_cannot_be(tiny_config):
    with pytest.raises(InputError, match=r"a lane of 5 pictures has less than its share of a batch, 6: make --lanes or --batch smaller"):
        ShardOrder([0, 5, 10, 15], 12, 0, 0, lanes=2)
    with pytest.raises(InputError, match=r"4 shard\(s\) cannot be dealt into 8 lanes: make --lanes smaller, or write smaller shards"):
        ShardOrder([0, 5, 10, 15, 16], 8, 0, 0, lanes=8)
    with pytest.raises(InputError, match=r"3 lanes cannot be shared by 2 process\(es\): make --lanes a multiple of 2, or 1"):
        ShardOrder([0, 5, 10, 15, 16], 6, 0, 0, lanes=3, peers=Peers(0, 2))
    for changes, message in (
        ({"lanes": 3}, r"batch \(4\) must be a multiple of lanes \(3\)"),
        ({"cache": "ram"}, "cache must be none, got ram"),
    ):
        with pytest.raises(InputError, match=message):
            tiny_config(source="shards", **changes)
    ShardOrder([0, 5], 4, 0, 0, peers=ALONE)


def spoiled(root: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "train"
    folder.mkdir()
    for path in (root / "train").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_missing_or_spoiled_shard_is_told_before_training(root, tmp_path):
    folder = spoiled(root, tmp_path)
    content = (folder / "000002.tar").read_bytes()
    (folder / "000002.tar").unlink()
    with pytest.raises(InputError, match=r"shard .*000002.tar is missing, although its index lists it; copy it there or write"):
        ShardSet(tmp_path, "train", SAMPLE_CLASSES)
    (folder / "000002.tar").write_bytes(content[:-100])
    with pytest.raises(InputError, match=r"000002.tar has [\d,]+ bytes, its index says [\d,]+: it is cut off or another one; fetch"):
        ShardSet(tmp_path, "train", SAMPLE_CLASSES)
    (folder / "000002.tar").write_bytes(b"\x01" * len(content))
    with pytest.raises(InputError, match=r"000002.tar cannot be read as a shard"):
        ShardSet(tmp_path, "train", SAMPLE_CLASSES).size(11)
    (folder / "000002.tar").write_bytes((folder / "000003.tar").read_bytes().ljust(len(content), b"\0"))
    with pytest.raises(InputError, match=r"000002.tar holds 1 samples, its index says 5; write or fetch it again"):
        ShardSet(tmp_path, "train", SAMPLE_CLASSES).size(11)


@pytest.mark.parametrize("name", ["", ".", "..", "../a.tar", "/a.tar", "b/a.tar", "b\\\\a.tar"])
def test_an_index_whose_shards_are_elsewhere(tmp_path, name):
    (tmp_path / "index.json").write_text(json.dumps({"format": FORMAT, "shards": [{"name": name, "samples": 1, "bytes": 1}]}))
    with pytest.raises(InputError, match="a shard without a plain name"):
        ShardSet(tmp_path.parent, tmp_path.name, SAMPLE_CLASSES)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', '{"format": "spyolo-shards-1", "shards": [{"name": "../a"}]}'])
def test_an_index_that_is_none(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(InputError, match="is no index of shards"):
        ShardSet(tmp_path, ".", SAMPLE_CLASSES)
    good = {"format": FORMAT, "shards": [{"name": "a.tar", "samples": 1, "bytes": 1}]}
    for objects in ([], {"cat": "many"}, {"cat": -1}, {"cat": 2**64}):
        (tmp_path / "index.json").write_text(json.dumps({**good, "objects": objects}))
        with pytest.raises(InputError, match="is no index of shards"):
            ShardSet(tmp_path, ".", SAMPLE_CLASSES)
    with pytest.raises(InputError, match=r"index.json does not exist; tools/make_shards.py writes it, last of all"):
        ShardSet(tmp_path, "nothing", SAMPLE_CLASSES)


def test_shards_that_are_elsewhere_are_fetched_and_a_few_kept(voc, root, tmp_path):
    here = tmp_path / "here" / "train"
    here.mkdir(parents=True)
    (here / "index.json").write_bytes((root / "train" / "index.json").read_bytes())
    store = ShardStore(f"pipe:cat {root}/{{}}", tmp_path / "kept", kept=2)
    shards = ShardSet(tmp_path / "here", "train", SAMPLE_CLASSES, store)
    assert not store.folder.exists()
    for i in (0, 6, 12, 15, 3):  # one of each shard, then the first again
        assert np.array_equal(shards.image(i), voc.image(i))
    assert sorted(p.name for p in store.folder.iterdir()) == ["train-000002.tar", "train-000003.tar"]
    broken = ShardSet(tmp_path / "here", "train", SAMPLE_CLASSES, ShardStore("pipe:false {}", tmp_path / "other"))
    with pytest.raises(InputError, match=r"shard train/000000.tar cannot be fetched from pipe:false train/000000.tar"):
        broken.size(0)
    with pytest.raises(InputError, match="does not say where a shard's name goes"):
        ShardStore("https://host/train")


def test_splits_whose_shards_have_one_name_are_fetched_apart_and_what_came_short_anew(tmp_path):
    far = tmp_path / "far"
    for split, content in (("train", b"a" * 20), ("val", b"b" * 20)):
        (far / split).mkdir(parents=True)
        (far / split / "000000.tar").write_bytes(content)
    store = ShardStore(f"pipe:cat {far}/{{}}", tmp_path / "kept")
    here = tmp_path / "here"

    def fetched(split: str) -> bytes:
        return store.path(here / split / "000000.tar", 20, here).read_bytes()

    assert (fetched("train"), fetched("val")) == (b"a" * 20, b"b" * 20)
    (far / "train" / "000000.tar").write_bytes(b"a" * 7)
    assert fetched("train") == b"a" * 20  # kept
    next(store.folder.glob("train*")).unlink()
    with pytest.raises(InputError, match="has 7 bytes, its index says 20"):
        fetched("train")
    (far / "train" / "000000.tar").write_bytes(b"c" * 20)
    assert fetched("train") == b"c" * 20


def test_one_id_in_two_splits_is_refused_where_pictures_are_told_apart_by_it(root, tmp_path):
    for split in ("one", "two"):
        shutil.copytree(root / "train", tmp_path / split)
    shards = ShardSet(tmp_path, "one+two", SAMPLE_CLASSES)
    with pytest.raises(InputError, match=r"one/000000.tar and .*two/000000.tar both have a picture '000001'; ids must be unique"):
        shards.index(shards.ids[0])


@pytest.mark.parametrize(("change", "said"), [
    ({"width": 0}, "0 x 40 pixels"), ({"height": 2**40}, "30 x 1099511627776 pixels"),
    ({"objects": [{"name": "cat", "box": [9, 9, 3, 3], "difficult": False}]}, "a box without area"),
])  # fmt: skip
def test_a_description_that_cannot_be_of_a_picture(change, said):
    told = {"id": "a", "width": 30, "height": 40, "objects": [{"name": "cat", "box": [1, 2, 3, 4], "difficult": False}]}
    assert _understood(json.dumps(told).encode(), "here")["width"] == 30
    with pytest.raises(InputError, match=rf"here is spoilt \(ValueError: {said}"):
        _understood(json.dumps(told | change).encode(), "here")


def test_the_command_writes_them_and_a_run_trains_on_them(sample_root, tiny_config, tmp_path, capsys, unadorned):
    from spyolo.trainer import Trainer

    for split in ("train", "val"):
        options = ["--data", str(sample_root), "--split", f"2007:{split}", "--classes", "sample", "--per-shard", "4"]
        assert run("make_shards", [*options, "--out", str(tmp_path / split)]) == 0
    assert "16 pictures in 4 shard(s)" in capsys.readouterr().out
    config = tiny_config(source="shards", data=str(tmp_path), train="train", val="val", epochs=1, lanes=2)
    trainer = Trainer(config, quiet=True)
    assert trainer.per_epoch == 4 and trainer.fit() and trainer.folder.best.exists()
    assert run("make_shards", ["--data", str(sample_root), "--split", "2007:val", "--out", str(tmp_path / "x"), "--per-shard", "0"]) == 2
