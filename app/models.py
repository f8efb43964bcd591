"""The models on offer: weights files found or given, loaded once and shared by all users."""

from __future__ import annotations

import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from spyolo.checkpoint import WeightsInfo, check_pictures, info_from_metadata, load_detector
from spyolo.data import SAMPLE_CLASSES
from spyolo.detection import SpikingYOLO
from spyolo.errors import InputError
from spyolo.evaluation.tallies import Counts
from spyolo.predictor import Predictor
from spyolo.summary import twin_counts

KEPT = 3  # models in memory
WHY_PICTURES = "the page shows pictures, which have 3"


def knows_drawn(info: WeightsInfo) -> bool:
    """Whether a detector learned the drawn shapes rather than photographs (also with things added on the page)."""
    return set(SAMPLE_CLASSES) <= set(info.classes)


@dataclass
class Model:
    """A loaded detector. Take `lock` while it runs: the energy meter's hooks would count another user's picture too."""

    name: str
    detector: SpikingYOLO
    info: WeightsInfo
    device: torch.device
    lock: threading.Lock = field(default_factory=threading.Lock)
    _twin: Counts | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    @property
    def drawn(self) -> bool:
        return knows_drawn(self.info)

    @property
    def timesteps(self) -> int:
        """Steps a picture is shown: as trained. Without neurons that remember every step is the same, so one is all there is."""
        return self.detector.steps_of(self.info.timesteps)

    def predictor(self, **options: Any) -> Predictor:
        """A predictor of one request: thresholds are its own, weights are shared."""
        return Predictor(self.detector, self.info, device=self.device, **options)

    def twin(self) -> Counts:
        """What the ANN twin would compute, from shapes alone; counted once."""
        if self._twin is None:
            self._twin = twin_counts(self.detector, self.info.size)
        return self._twin


@dataclass(frozen=True)
class Offer:
    """A weights file that may be chosen, as its head describes it."""

    name: str  # short and one of a kind; folders of this computer are nobody's business
    path: Path
    info: WeightsInfo

    @property
    def label(self) -> str:
        """What the page's list says."""
        ap = accuracy(self.info)
        good = f", AP50 {ap:.2f}" if ap is not None else ""
        kind = "drawn shapes" if knows_drawn(self.info) else "photographs"
        plain = "" if self.info.spec.units.spiking else "ordinary network, "
        return f"{self.name} ({plain}{kind}{good})"

    @property
    def rank(self) -> tuple[Any, ...]:
        """Trained on photographs before drawn, spiking before not, as trained before learned on the page, the most accurate first."""
        info = self.info
        return knows_drawn(info), not info.spec.units.spiking, "adapted_with" in info.notes, -(accuracy(info) or 0.0)


class Models:
    """Weights files that may be chosen. Only these: a web user never names a path.

    Args:
        folders: searched for *.safetensors, again at every look, so that a file saved meanwhile appears; the first ones win ties.
        given: files named on the command line, offered first in their order; one that is not ours, or not for pictures, is an error.
        found: further files, which like those in `folders` are left out if they are not ours, or not for pictures.

    Raises:
        InputError: nothing to offer, or a file given that is not ours.
    """

    def __init__(
        self, folders: Iterable[Path], given: Sequence[Path] = (), device: torch.device | str = "cpu", found: Sequence[Path] = ()
    ) -> None:
        self.folders, self.given, self.found, self.device = list(folders), list(given), list(found), torch.device(device)
        self._heads: dict[tuple[Path, float, int], WeightsInfo | InputError] = {}
        self._loaded: OrderedDict[tuple[Path, float, int], Model] = OrderedDict()
        self._lock = threading.RLock()
        for path in self.given:
            self._load("given", path)
        self.first = self._first()

    def _first(self) -> str:
        """The first offer that loads: a file may have a good head and a broken body."""
        for offer in self.offers():
            try:
                self.load(offer.name)
            except InputError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            return offer.name
        looked = ", ".join(map(str, self.folders))
        raise InputError(f"no weights file in {looked}; `make train` makes one in minutes, or name one with --weights")

    def offers(self) -> list[Offer]:
        """All that can be chosen now, the best choice first."""
        given = [(path, self._head(path)) for path in self.given]
        paths = [path for folder in self.folders for path in sorted(folder.glob("*.safetensors"))]
        first: dict[Path, Path] = {}  # of two ways to one file the first
        for path in [*self.given, *paths, *self.found]:
            first.setdefault(path.resolve(), path)
        others = [(path, self._head(path)) for path in first.values() if path not in self.given]
        ours = [(path, info) for path, info in others if isinstance(info, WeightsInfo)]
        ours.sort(key=lambda found: Offer("", *found).rank)
        names = set[str]()
        return [Offer(short(path, names), path, info) for path, info in [*given, *ours] if isinstance(info, WeightsInfo)]

    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of each offer, as a dropdown takes them."""
        return [(offer.label, offer.name) for offer in self.offers()]

    def names(self) -> list[str]:
        return [offer.name for offer in self.offers()]

    @property
    def photographs(self) -> bool:
        """Whether any offer was trained on photographs."""
        return any(not knows_drawn(offer.info) for offer in self.offers())

    def load(self, name: str | None) -> Model:
        """Raises InputError for a name that is not offered, or a file that is gone or broken."""
        for offer in self.offers():
            if offer.name == name:
                return self._load(offer.name, offer.path)
        raise InputError("this model is no longer there; choose another one above")

    def _load(self, name: str, path: Path) -> Model:
        with self._lock:
            key = stamp(path)
            if key not in self._loaded:
                detector, info = load_detector(path)
                check_pictures(info.spec, path, WHY_PICTURES)
                self._loaded[key] = Model(name, detector.to(self.device), info, self.device)
                while len(self._loaded) > KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            self._loaded[key].name = name
            return self._loaded[key]

    def _head(self, path: Path) -> WeightsInfo | InputError:
        """What a file says of itself, read anew when the file changes; a file that is not ours is told once."""
        with self._lock:
            key = stamp(path)
            if key not in self._heads:
                try:
                    self._heads[key] = read_head(path)
                except InputError as error:
                    self._heads[key] = error
                    print(f"left out: {error}", file=sys.stderr)
            return self._heads[key]


def stamp(path: Path) -> tuple[Path, float, int]:
    """Tells one content of a file from the next."""
    try:
        return path, path.stat().st_mtime, path.stat().st_size
    except OSError:
        return path, 0.0, 0


def read_head(path: Path) -> WeightsInfo:
    """A weights file's description, without its tensors.

    Raises:
        InputError: no such file, not ours, or not for pictures.
    """
    try:
        with safe_open(path, framework="pt") as file:
            info = info_from_metadata(file.metadata() or {}, path)
            check_pictures(info.spec, path, WHY_PICTURES)
            return info
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a whole safetensors file ({error})") from error


def short(path: Path, taken: set[str]) -> str:
    """A name for a weights file that no other has; a run's best.safetensors is called after the run."""
    own = re.sub(r"[^\w.+-]+", "-", path.parent.name if path.stem in ("best", "last") else path.stem) or "model"
    name, count = own, 1
    while name in taken:
        count += 1
        name = f"{own}-{count}"
    taken.add(name)
    return name


def accuracy(info: WeightsInfo) -> float | None:
    """AP50 on held-out pictures, if the file says one."""
    ap = info.metrics.get("voc10_ap50")
    return float(ap) if isinstance(ap, (int, float)) else None


def about(model: Model, photographs: bool = True) -> str:
    """A few plain sentences on a model. `photographs`: whether the page offers any model trained on them."""
    info, ap = model.info, accuracy(model.info)
    names = ", ".join(map(as_text, info.classes[:8])) + (f" and {len(info.classes) - 8} more" if len(info.classes) > 8 else "")
    split = "held-out drawn" if model.drawn else as_text(str(info.metrics.get("split", "held-out")))
    good = f" Accuracy (AP50, 1 is perfect): {ap:.2f} on {split} pictures." if ap is not None else ""
    steps = f"{model.timesteps} time step{'' if model.timesteps == 1 else 's'}"
    text = f"Finds **{names}**. Looks at {info.size} x {info.size} pixels for {steps}.{good}"
    if not model.detector.spiking:
        text += " An ordinary network, for comparison: it has no spikes, and one look is all it takes."
    if model.drawn:
        text += " **It was trained on drawn shapes, not on photographs:** try it with the drawn pictures; on photographs it finds nothing."
        text += " Choose another model for photographs." if photographs else " No model trained on photographs is here yet."
    return text


def as_text(name: str) -> str:
    """A name out of a file, for Markdown: a picture in it would be fetched from elsewhere by everybody's browser."""
    return re.sub(r"([^\w\s,.:+-])", r"\\\1", " ".join(name.split()))
