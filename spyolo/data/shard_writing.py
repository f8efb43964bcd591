"""A VOC set written as the shards that `spyolo.data.shards` reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from spyolo.data.shards import FORMAT, PICTURE
from spyolo.data.voc import VOCSet
from spyolo.errors import InputError
from spyolo.files import make_folder, read_limited, write_whole


def make_shards(voc: VOCSet, out: str | Path, per_shard: int = 500) -> list[Path]:
    """Write a set as shards: the pictures' own bytes, never decoded. The index comes last, so what has one is whole.

    Raises:
        InputError: webdataset is not installed, the folder cannot be made or written to or holds something, a picture is missing, empty or
            cannot be read. No shard is left behind then.
    """
    out = make_folder(out)
    if any(out.iterdir()):
        raise InputError(f"{out} is not empty; give another folder")
    shares = [range(first, min(first + per_shard, len(voc))) for first in range(0, len(voc), per_shard)]
    paths = [out / f"{number:06d}.tar" for number in range(len(shares))]
    try:
        for path, chosen in zip(paths, shares):
            _write_shard(voc, chosen, path)
        rows = [{"name": path.name, "samples": len(chosen), "bytes": path.stat().st_size} for path, chosen in zip(paths, shares)]
        objects = Counter(voc.classes[label] for i in range(len(voc)) for label in voc.objects(i).labels.tolist())
        index = {"format": FORMAT, "classes": list(voc.classes), "objects": objects, "shards": rows}
        write_whole(out / "index.json", json.dumps(index, indent=1))
    except BaseException:  # Ctrl-C too: half a set would be in the way of the next try
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    return paths


def _write_shard(voc: VOCSet, chosen: Iterable[int], path: Path) -> None:
    try:
        from webdataset import TarWriter
    except ImportError as error:
        raise InputError("webdataset is not installed: pip install webdataset") from error
    try:
        with TarWriter(str(path), encoder=False, mtime=0) as tar:
            for i in chosen:
                picture = voc.image_path(i)
                tar.write({"__key__": f"{i:08d}", picture.suffix[1:].lower(): _content(picture), "json": _described(voc, i)})
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from None


def _content(picture: Path) -> bytes:
    """A picture's bytes. Raises InputError."""
    try:
        content = read_limited(picture, PICTURE)
    except FileNotFoundError:
        raise InputError(f"{picture} does not exist") from None
    except OSError as error:
        raise InputError(f"{picture} cannot be read ({error.strerror or error})") from None
    if not content:
        raise InputError(f"{picture} cannot be read as a picture (the file is empty)")
    return content


def _described(voc: VOCSet, i: int) -> bytes:
    width, height = voc.size(i)
    objects = voc.objects(i)
    rows = [
        {"name": voc.classes[label], "box": box, "difficult": difficult}
        for box, label, difficult in zip(objects.boxes.tolist(), objects.labels.tolist(), objects.difficult.tolist())
    ]
    return json.dumps({"id": voc.ids[i], "width": width, "height": height, "objects": rows}, ensure_ascii=False).encode()
