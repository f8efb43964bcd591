"""A sample is a function of (seed, epoch, index), whoever makes it and however it is kept."""

from __future__ import annotations

import pickle

import pytest
import torch

from spyolo.data import SAMPLE_CLASSES, DataWarning, DetectionDataset, VOCSet, collate, load_batches
from spyolo.data.annotation import Thing
from spyolo.data.dataset import Sample
from spyolo.errors import InputError

CAT = Thing("cat", (10.0, 5.0, 40.0, 30.0))


@pytest.fixture(scope="module")
def voc(sample_root):
    return VOCSet(sample_root, "2007:train", SAMPLE_CLASSES)


def same(one: Sample, other: Sample) -> bool:
    return (
        torch.equal(one.image, other.image)
        and torch.equal(one.objects.boxes, other.objects.boxes)
        and torch.equal(one.objects.labels, other.objects.labels)
        and one.letterbox == other.letterbox
    )


def test_eval_is_the_letterboxed_picture(voc):
    sample = DetectionDataset(voc, 160, "eval")[0]
    assert sample.image.shape == (3, 160, 160) and sample.image.dtype == torch.uint8 and sample.image_id == voc.ids[0]
    assert torch.allclose(sample.letterbox.to_picture(sample.objects.boxes), voc.objects(0).boxes, atol=1e-3)


@pytest.mark.parametrize("preset", ["train", "mosaic"])
def test_samples_do_not_depend_on_workers_or_on_order(voc, preset):
    data = DetectionDataset(voc, 96, preset, seed=1)
    alone = [data[i] for i in reversed(range(len(data)))][::-1]
    for workers in (0, 2):
        for batch, start in zip(load_batches(data, workers, batch_size=4), range(0, len(data), 4)):
            for k, image in enumerate(batch.images):
                assert torch.equal(image, alone[start + k].image)
                assert torch.equal(batch.objects[k].boxes, alone[start + k].objects.boxes)


def test_epochs_and_seeds_differ_and_living_workers_hear_of_the_epoch(voc):
    data = DetectionDataset(voc, 96, "train", seed=1)
    loader = load_batches(data, 1, batch_size=4, persistent_workers=True)
    first = torch.cat([batch.images for batch in loader])
    data.set_epoch(1)
    second = torch.cat([batch.images for batch in loader])
    data.set_epoch(0)
    again = torch.cat([batch.images for batch in loader])
    assert torch.equal(first, again)
    assert not any(torch.equal(a, b) for a, b in zip(first, second))
    assert not torch.equal(DetectionDataset(voc, 96, "train", seed=2)[0].image, first[0])


@pytest.mark.parametrize("preset", ["eval", "train", "mosaic"])
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cache_changes_nothing(voc, preset, cache, tmp_path):
    plain = DetectionDataset(voc, 96, preset)
    kept = DetectionDataset(voc, 96, preset, cache=cache, cache_folder=tmp_path)
    for _ in range(2):  # the first pass fills it, the second reads it
        assert all(same(plain[i], kept[i]) for i in range(6))


def test_a_cache_on_disk_serves_other_processes_and_later_runs(sample_root, tmp_path, monkeypatch):
    voc = VOCSet(sample_root, "2007:val", SAMPLE_CLASSES)
    data = DetectionDataset(voc, 96, "eval", cache="disk", cache_folder=tmp_path)
    expected = [data[i] for i in range(len(data))]
    later = pickle.loads(pickle.dumps(DetectionDataset(voc, 96, "eval", cache="disk", cache_folder=tmp_path)))
    monkeypatch.setattr(VOCSet, "image", lambda *_: pytest.fail("decoded again"))
    assert all(same(later[i], expected[i]) for i in range(len(data)))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cache_in_memory_is_shared_with_loader_processes(voc, monkeypatch):
    data = DetectionDataset(voc, 96, "eval", cache="ram")
    loader = load_batches(data, 1, batch_size=4)
    images = torch.cat([batch.images for batch in loader])
    monkeypatch.setattr(VOCSet, "image", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(torch.stack([data[i].image for i in range(len(data))]), images)


def test_no_room_for_a_cache(voc, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"no room for .* GB of decoded pictures in .*file"):
        DetectionDataset(voc, 96, "eval", cache="disk", cache_folder=tmp_path / "file")


def test_a_batch_holds_what_the_samples_held(voc):
    data = DetectionDataset(voc, 96, "eval")
    batch = collate([data[0], data[1]])
    assert batch.images.shape == (2, 3, 96, 96) and len(batch) == 2 and batch.ids == voc.ids[:2]
    assert torch.equal(batch.objects[1].boxes, data[1].objects.boxes) and batch.letterboxes[1] == data[1].letterbox


# --- pictures that cannot be used ---


def damaged(make_devkit, strict: bool = False) -> VOCSet:
    root = make_devkit({"a": [CAT], "b": [CAT, CAT], "c": [CAT]})
    (root / "VOCdevkit/VOC2007/JPEGImages/a.jpg").write_bytes(b"")
    return VOCSet(root, "2007:train", ("cat",), strict=strict)


def test_training_takes_the_next_picture(make_devkit):
    data = DetectionDataset(damaged(make_devkit), 64, "train")
    with pytest.warns(DataWarning, match=r"a\.jpg cannot be read as a picture \(the file is empty\); left out \(1 so far\)"):
        sample = data[0]
    assert len(sample.objects) == 2 and data.unreadable == 1


def test_evaluation_sees_an_empty_canvas(make_devkit):
    data = DetectionDataset(damaged(make_devkit), 64, "eval")
    with pytest.warns(DataWarning, match="an empty canvas stands in"):
        sample = data[0]
    assert (sample.image == 114).all() and len(sample.objects) == 0 and sample.image_id == "a"
    assert len(data[1].objects) == 2


@pytest.mark.parametrize("preset", ["eval", "train"])
def test_strict_stops_at_the_picture(make_devkit, preset):
    with pytest.raises(InputError, match=r"a\.jpg cannot be read"):
        DetectionDataset(damaged(make_devkit, strict=True), 64, preset)[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_counts_from_loader_processes_arrive(make_devkit):
    data = DetectionDataset(damaged(make_devkit), 64, "eval")
    list(load_batches(data, 2, batch_size=1))
    assert data.unreadable == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_usable_picture_at_all(make_devkit):
    root = make_devkit({"a": [CAT]})
    (root / "VOCdevkit/VOC2007/JPEGImages/a.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of the 1 pictures"):
        DetectionDataset(VOCSet(root, "2007:train", ("cat",)), 64, "train")[0]


def test_unknown_options(voc):
    with pytest.raises(InputError, match="preset 'trian' is none of train, mosaic, eval"):
        DetectionDataset(voc, 64, "trian")
    with pytest.raises(InputError, match="cache 'tape'"):
        DetectionDataset(voc, 64, "train", cache="tape")
