"""Fetching the real devkit where there is a network: torchvision's addresses and checksums."""

from __future__ import annotations

import tarfile
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchvision.datasets import VOCDetection

from spyolo.data.splits import Split, find_folder, parse_splits
from spyolo.errors import InputError

PAGES = {
    ("2007", "trainval"): "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ (VOCtrainval_06-Nov-2007.tar, 0.4 GB)",
    ("2007", "test"): "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ (VOCtest_06-Nov-2007.tar, 0.4 GB)",
    ("2012", "trainval"): "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (VOCtrainval_11-May-2012.tar, 1.9 GB)",
}


def download_voc(root: str | Path, splits: str | Sequence[Split]) -> list[str]:
    """Fetch and unpack into <root>/VOCdevkit whatever of the splits is not there yet. Returns what was fetched, such as `2007:trainval`.

    The archives stay in `root`; an archive that is there already and whole is only unpacked.

    Raises:
        InputError: a split that is not published, no network, or a file whose checksum is wrong; says how to fetch it by hand.
    """
    wanted = parse_splits(splits) if isinstance(splits, str) else list(splits)
    fetched = []
    for year, part in dict.fromkeys(_archive(split) for split in wanted if not _present(Path(root), split)):
        try:
            with inside_only():
                VOCDetection(str(root), year=year, image_set=part, download=True)
        except (urllib.error.URLError, OSError, RuntimeError, tarfile.TarError) as error:
            raise InputError(
                f"VOC {year} {part} could not be fetched ({error}). By hand: get it from {PAGES[year, part]} and unpack it in {root}, "
                "so that VOCdevkit comes to lie there"
            ) from None
        fetched.append(f"{year}:{part}")
    return fetched


@contextmanager
def inside_only() -> Iterator[None]:
    """Inside, no tar file is unpacked beyond its folder, by whichever library: no absolute paths, no .., no links out, no devices.
    Python does so of itself from 3.14 on."""
    before = getattr(tarfile.TarFile, "extraction_filter", None)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before  # type: ignore[assignment]


def _archive(split: Split) -> tuple[str, str]:
    """Year and part of the archive that holds a split."""
    key = (split.year, "test" if split.name.split("_")[-1] == "test" else "trainval")
    if key not in PAGES:
        raise InputError(f"{split} cannot be fetched; published with their truth are " + ", ".join(f"{y}:{p}" for y, p in PAGES))
    return key


def _present(root: Path, split: Split) -> bool:
    try:
        return (find_folder(root, split.year) / "ImageSets" / "Main" / f"{split.name}.txt").is_file()
    except InputError:
        return False
