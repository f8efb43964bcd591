"""Pictures and their boxes in WebDataset shards: tar files of some hundred pictures, beside an index that says what each holds.

    shards/train/index.json        {"format", "classes", "objects": {class: how many}, "shards": [{"name", "samples", "bytes"}, ...]}
    shards/train/000000.tar        00000000.jpg, 00000000.json, 00000001.jpg, ...

Any WebDataset reader can stream them. Here they are read by place (an index of offsets is taken when a shard is first opened), so that
everything that holds for a folder of pictures holds for them: order, augmentation and resuming are functions of (seed, epoch, picture),
whatever the number of processes.
"""

from __future__ import annotations

import json
import math
import tarfile
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spyolo.boxes import Objects
from spyolo.data.annotation import MOST_PIXELS
from spyolo.data.images import read_image
from spyolo.data.problems import DataWarning
from spyolo.data.shard_fetching import ShardStore
from spyolo.data.splits import leaves_folder
from spyolo.errors import InputError
from spyolo.files import one_line, read_limited, shortened

FORMAT = "spyolo-shards-1"
INDEX, DESCRIPTION, PICTURE = 2**28, 2**24, 2**28  # bytes at most
OPEN = 32  # shards whose offsets each process keeps


class ShardSet:
    """Shards as the rest of the code takes a data set; see `VOCSet` for what its methods mean.

    Args:
        root: the folder that holds the splits' folders.
        splits: `train`, or several: `train+more`.
        classes: names in label order; objects of other names are left out with a warning.
        store: where the shards are; None: beside their index.

    Raises:
        InputError: no index, a shard that is missing or cut off, a split that is named twice.
    """

    strict = True
    left_out = ()  # pictures that are not usable: none is tolerated

    def __init__(self, root: str | Path, splits: str, classes: Sequence[str], store: ShardStore | None = None) -> None:
        self.root, self.classes, self.store = Path(root), tuple(classes), store or ShardStore()
        self.shards: list[tuple[Path, int]] = []  # where it belongs, bytes
        counts: list[int] = []
        held: Counter[str] = Counter()  # objects of each class; of an older index, which does not say how many: 0
        folders = [self.root / split.strip() for split in splits.split("+")]
        if len({folder.resolve() for folder in folders}) < len(folders):
            raise InputError(f"{splits!r} names a split twice")
        for folder in folders:
            rows, objects = _read_index(folder / "index.json")
            for name, samples, size in rows:
                self.shards.append((folder / name, size))
                counts.append(samples)
            held.update(objects)
        self._warn_of_other_classes(held)
        self.store.check(self.shards)
        self.starts = np.cumsum([0, *counts])
        self._chosen: np.ndarray | None = None
        self._opened: OrderedDict[int, tuple[Any, list[dict[str, tuple[int, int]]]]] = OrderedDict()
        self._last: tuple[int, dict[str, Any]] = (-1, {})

    def _warn_of_other_classes(self, held: Counter[str]) -> None:
        others = [f"{name} ({count})" if count else name for name, count in held.most_common() if name not in self.classes]
        if others:
            more = f" and {len(others) - 10} more" if len(others) > 10 else ""
            said = f"objects of classes that are not in use are left out: {', '.join(others[:10])}{more}"
            warnings.warn(f"{self.root}: {said}", DataWarning, stacklevel=3)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": OrderedDict(), "_last": (-1, {})}

    def __repr__(self) -> str:
        return f"ShardSet({self.root}: {len(self):,} pictures in {len(self.shards)} shards)"

    def __len__(self) -> int:
        return int(self.starts[-1]) if self._chosen is None else len(self._chosen)

    @property
    def whole(self) -> bool:
        """Whether it has all pictures of its shards, in their order."""
        return self._chosen is None

    def subset(self, indices: Iterable[int]) -> ShardSet:
        other = object.__new__(ShardSet)
        other.__dict__.update(self.__getstate__())
        other._chosen = np.array([self._place(i) for i in indices])
        other.__dict__.pop("_index", None)
        return other

    @property
    def ids(self) -> Sequence[str]:
        return _Ids(self)

    def index(self, image_id: str) -> int:
        """Place of an id; the first call reads every description once.

        Raises:
            KeyError: no such picture.
            InputError: two pictures have one id, and predictions could not be told apart.
        """
        if not hasattr(self, "_index"):
            index: dict[str, int] = {}
            for i in range(len(self)):
                if (first := index.setdefault(name := self.described(i)["id"], i)) != i:
                    where = f"{self.image_path(first)} and {self.image_path(i)}"
                    raise InputError(f"{where} both have a picture {shortened(name)}; ids must be unique among the splits used together")
            self._index = index
        return self._index[image_id]

    def described(self, i: int) -> dict[str, Any]:
        """What the shard says of picture i: id, width, height, objects."""
        place = self._place(i)
        if self._last[0] != place:
            content = self._member(place, ("json",), DESCRIPTION)
            self._last = (place, _understood(content, f"{self.image_path(i)}: description of sample {place}"))
        return self._last[1]

    def size(self, i: int) -> tuple[int, int]:
        told = self.described(i)
        return told["width"], told["height"]

    def objects(self, i: int) -> Objects:
        known = [o for o in self.described(i)["objects"] if o["name"] in self.classes]
        boxes = torch.tensor([o["box"] for o in known], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([self.classes.index(o["name"]) for o in known], dtype=torch.int64)
        return Objects(boxes, labels, torch.tensor([o["difficult"] for o in known], dtype=torch.bool))

    def image(self, i: int) -> np.ndarray:
        width, height = self.size(i)
        content = self._member(self._place(i), ("jpg", "jpeg", "png", "bmp", "webp"), PICTURE)
        image = read_image(BytesIO(content), exif=False)
        if image.shape[:2] != (height, width):
            image = read_image(BytesIO(content))
        if image.shape[:2] != (height, width):
            raise InputError(f"{self.image_path(i)}: picture {self.ids[i]} is not {width} x {height} pixels as its description says")
        return image

    def image_path(self, i: int) -> Path:
        """The shard it is in."""
        return self.shards[self._shard_of(self._place(i))][0]

    def span(self, i: int) -> tuple[int, int]:
        """Places of the pictures in the same shard: where partners for a mosaic are looked for."""
        if self._chosen is not None:
            return 0, len(self)
        shard = self._shard_of(i)
        return int(self.starts[shard]), int(self.starts[shard + 1])

    def _place(self, i: int) -> int:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return i if self._chosen is None else int(self._chosen[i])

    def _shard_of(self, place: int) -> int:
        return int(np.searchsorted(self.starts, place, side="right")) - 1

    def _member(self, place: int, endings: Sequence[str], most: int) -> bytes:
        shard = self._shard_of(place)
        file, members = self._open(shard)
        number = place - int(self.starts[shard])
        offset, size = next((members[number][e] for e in endings if e in members[number]), (0, 0))
        if not size:
            raise InputError(f"{self.shards[shard][0]}: sample {number} has no .{' or .'.join(endings)}")
        if size > most:
            raise InputError(f"{self.shards[shard][0]}: sample {number}: more than {most:,} bytes of .{' or .'.join(endings)}")
        file.seek(offset)
        return file.read(size)

    def _open(self, shard: int) -> tuple[Any, list[dict[str, tuple[int, int]]]]:
        """The shard's file, and for each sample ending -> (offset, bytes)."""
        if shard in self._opened:
            self._opened.move_to_end(shard)
            return self._opened[shard]
        path = self.store.path(*self.shards[shard], self.root)
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            file = open(path, "rb")  # noqa: SIM115 (kept open)
            end = path.stat().st_size
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    key, _, ending = member.name.partition(".")
                    if not 0 <= member.size <= end - member.offset_data:
                        raise ValueError(f"{shortened(member.name)} ends after the file does")
                    samples.setdefault(key, {})[ending.lower()] = (member.offset_data, member.size)
        except (OSError, tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise InputError(f"{path} cannot be read as a shard ({one_line(error)}); write or fetch it again") from None
        expected = int(self.starts[shard + 1] - self.starts[shard])
        if len(samples) != expected:
            raise InputError(f"{path} holds {len(samples)} samples, its index says {expected}; write or fetch it again")
        self._opened[shard] = (file, list(samples.values()))
        if len(self._opened) > OPEN:
            self._opened.popitem(last=False)[1][0].close()
        return self._opened[shard]


class _Ids(Sequence[str]):
    """Ids, read when they are asked for: there may be more than fit in memory."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, i: Any) -> Any:
        return [self[k] for k in range(*i.indices(len(self)))] if isinstance(i, slice) else self.shards.described(i)["id"]


def _read_index(path: Path) -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """(name, samples, bytes) of each shard, and objects of each class (0: not told). Raises InputError."""
    try:
        tree = json.loads(read_limited(path, INDEX))
        if tree["format"] != FORMAT:
            raise ValueError(f"format {shortened(tree['format'])}")
        rows = [(str(s["name"]), int(s["samples"]), int(s["bytes"])) for s in tree["shards"]]
        if not rows or any(not name or leaves_folder(name) or not 0 < samples < 2**40 or size < 1 for name, samples, size in rows):
            raise ValueError("a shard without a plain name, samples or bytes")
        told = tree["objects"] if "objects" in tree else dict.fromkeys(tree.get("classes", ()), 0)
        objects = {one_line(name, 100): int(count) for name, count in told.items()}
        if not all(0 <= count < 2**63 for count in objects.values()):
            raise ValueError("a class with a number of objects that cannot be")
        return rows, objects
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; tools/make_shards.py writes it, last of all") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is no index of shards ({type(error).__name__}: {one_line(error)})") from None


def _understood(content: bytes, where: str) -> dict[str, Any]:
    """What a shard says of one picture, in the types it must have. Raises InputError."""
    try:
        told = json.loads(content)
        boxes = [[float(v) for v in o["box"]] for o in told["objects"]]
        if any(len(box) != 4 or not math.isfinite(sum(map(abs, box))) for box in boxes):
            raise ValueError("a box that is not four finite numbers")
        if any(box[0] >= box[2] or box[1] >= box[3] for box in boxes):
            raise ValueError("a box without area: its corners are x1, y1, x2, y2")
        width, height = int(told["width"]), int(told["height"])
        if not (0 < width <= MOST_PIXELS and 0 < height <= MOST_PIXELS):
            raise ValueError(f"{width} x {height} pixels")
        objects = [{"name": str(o["name"]), "box": b, "difficult": bool(o["difficult"])} for o, b in zip(told["objects"], boxes)]
        return {"id": str(told["id"]), "width": width, "height": height, "objects": objects}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} is spoilt ({type(error).__name__}: {one_line(error)}); write or fetch the shard again") from None
