"""Sound files that hold many pictures, shards and videos, and the readers of them."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from fuzz_kinds import CLASSES, Kind
from PIL import Image

from spyolo.data.shards import FORMAT, ShardSet
from spyolo.sources import video_frames, video_info


def member(name: str, content: bytes) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, io.BytesIO(content)


def shards(folder: Path) -> list[bytes]:
    """Two pictures with their descriptions, in the three dialects of tar."""
    picture = io.BytesIO()
    Image.new("RGB", (32, 24), "teal").save(picture, "JPEG")
    described = {"id": "a", "width": 32, "height": 24, "objects": [{"name": "cat", "box": [1, 2, 10, 12], "difficult": False}]}
    made = []
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=dialect) as tar:
            for number in range(2):
                tar.addfile(*member(f"{number:08d}.jpg", picture.getvalue()))
                tar.addfile(*member(f"{number:08d}.json", json.dumps(described | {"id": f"a{number}"}).encode()))
        made.append(out.getvalue())
    return made


def shard_indices(folder: Path) -> list[bytes]:
    rows = [{"name": "000000.tar", "samples": 2, "bytes": 10240}]
    return [json.dumps({"format": FORMAT, "classes": list(CLASSES), "objects": {"cat": 3}, "shards": rows}, indent=1).encode()]


def read_shard(path: Path) -> None:
    index = {"format": FORMAT, "shards": [{"name": path.name, "samples": 2, "bytes": max(1, path.stat().st_size)}]}
    (path.parent / "index.json").write_text(json.dumps(index))
    look_at(ShardSet(path.parents[1], "train", CLASSES))


def read_shard_index(path: Path) -> None:
    tar = path.parent / "000000.tar"
    if not tar.exists():
        tar.write_bytes(shards(path)[0])
    look_at(ShardSet(path.parents[1], "train", CLASSES))


def look_at(found: ShardSet) -> None:
    for i in range(min(len(found), 3)):
        assert found.objects(i).boxes.isfinite().all() and found.image(i).dtype == np.uint8 and isinstance(found.ids[i], str)


def videos(folder: Path) -> list[bytes]:
    made = []
    for ending, codec in ((".mp4", "mp4v"), (".avi", "MJPG"), (".webm", "VP80")):
        path = folder / f"v{ending}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (48, 32))
        for k in range(6):
            frame = np.full((32, 48, 3), 40 * k, np.uint8)
            frame[4:12, 4 + 4 * k : 12 + 4 * k] = 255
            writer.write(frame)
        writer.release()
        made.append(path.read_bytes())
    assert all(made)
    return made


def read_video(path: Path) -> None:
    assert video_info(path).width >= 0
    for frame in islice(video_frames(path), 50):
        assert frame.dtype == np.uint8 and frame.shape[2] == 3


KINDS = {
    "shard": Kind(shards, "shards/train/000000.tar", read_shard, 4),
    "shard index": Kind(shard_indices, "shards/train/index.json", read_shard_index, 2),
    "video": Kind(videos, "v.mp4", read_video, 4),
}
