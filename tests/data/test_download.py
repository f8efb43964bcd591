"""Fetching the devkit; no test goes to the network."""

from __future__ import annotations

import io
import tarfile
import urllib.error

import pytest
from torchvision.datasets.utils import extract_archive

from spyolo.data import download
from spyolo.data.annotation import Thing
from spyolo.data.download import download_voc
from spyolo.errors import InputError


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, str]]:
    """What torchvision is asked for."""
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(download, "VOCDetection", lambda root, year, image_set, download: calls.append((year, image_set)))
    return calls


def test_only_what_is_missing_is_fetched_and_each_archive_once(make_devkit, asked):
    root = make_devkit({"a": [Thing("cat", (0, 0, 9, 9))]}, split="train")
    assert download_voc(root, "2007:train") == [] and asked == []
    fetched = download_voc(root, "2007:train+2007:val+2007:trainval+2007:test+2012:trainval")
    assert fetched == ["2007:trainval", "2007:test", "2012:trainval"]
    assert asked == [("2007", "trainval"), ("2007", "test"), ("2012", "trainval")]


@pytest.mark.parametrize("split", ["2012:test", "1999:train", "train"])
def test_what_is_not_published_is_not_asked_for(tmp_path, asked, split):
    with pytest.raises(InputError, match=f"{split} cannot be fetched; published with their truth are 2007:trainval"):
        download_voc(tmp_path, split)
    assert asked == []


@pytest.mark.parametrize("name", ["../outside", "link/outside"])
def test_an_archive_cannot_leave_its_folder(tmp_path, monkeypatch, name):
    """Unpacked by torchvision, as a published one is (whose checksum was checked before)."""
    archive, root = tmp_path / "a.tar", tmp_path / "data"
    with tarfile.open(archive, "w") as tar:
        if name.startswith("link"):
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            tar.addfile(link)
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    monkeypatch.setattr(download, "VOCDetection", lambda *_, **__: extract_archive(archive, root))
    with pytest.raises(InputError, match=r"VOC 2007 trainval could not be fetched .*(outside the destination|absolute path)"):
        download_voc(root, "2007:trainval")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), RuntimeError("File not found or corrupted."), OSError("disk full")])
def test_no_network_or_a_wrong_checksum_says_what_to_do(tmp_path, monkeypatch, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(download, "VOCDetection", fail)
    with pytest.raises(InputError, match=r"VOC 2012 trainval could not be fetched .*By hand: get it from .*VOCtrainval_11-May-2012\.tar"):
        download_voc(tmp_path, "2012:trainval")
