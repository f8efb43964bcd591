"""The models on offer: weights files found or given, loaded once and shared by all users."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from spyolo.checkpoint import WeightsInfo, load_detector
from spyolo.data import SAMPLE_CLASSES
from spyolo.detection import SpikingYOLO
from spyolo.errors import InputError
from spyolo.evaluation.tallies import Counts
from spyolo.predictor import Predictor
from spyolo.summary import twin_counts

KEPT = 3  # models in memory


@dataclass
class Model:
    """A loaded detector. Take `lock` while it runs: the energy meter's hooks would count another user's picture too."""

    path: Path
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
        """Whether it knows drawn shapes rather than photographs."""
        return set(SAMPLE_CLASSES) <= set(self.classes)

    def predictor(self, **options: Any) -> Predictor:
        """A predictor of one request: thresholds are its own, weights are shared."""
        return Predictor(self.detector, self.info, device=self.device, **options)

    def twin(self) -> Counts:
        """What the ANN twin would compute, from shapes alone; counted once."""
        if self._twin is None:
            self._twin = twin_counts(self.detector, self.info.size)
        return self._twin


class Models:
    """Weights files that may be chosen. Only these: a web user never names a path.

    Args:
        folders: searched for *.safetensors, again at every look, so that a file saved meanwhile appears.
        given: files named on the command line; the first is chosen at the start.

    Raises:
        InputError: nothing to offer, or a file given that is not ours.
    """

    def __init__(self, folders: Iterable[Path], given: Sequence[Path] = (), device: torch.device | str = "cpu") -> None:
        self.folders, self.given, self.device = list(folders), list(given), torch.device(device)
        self._loaded: OrderedDict[tuple[Path, float], Model] = OrderedDict()
        self._lock = threading.Lock()
        for path in self.given:
            self.load(str(path))
        if not self.names():
            looked = ", ".join(map(str, self.folders))
            raise InputError(f"no weights file in {looked}; `make train` makes one in minutes, or name one with --weights")

    def paths(self) -> list[Path]:
        found = [path for folder in self.folders for path in sorted(folder.glob("*.safetensors"))]
        return list(dict.fromkeys([*self.given, *found]))

    def names(self) -> list[str]:
        return [str(path) for path in self.paths()]

    def load(self, name: str | None) -> Model:
        """Raises InputError for a file that is not offered, gone, or not ours."""
        path = Path(name or "")
        if path not in self.paths():
            raise InputError("this model is no longer there; choose another one above")
        key = (path, path.stat().st_mtime if path.exists() else 0.0)
        with self._lock:
            if key not in self._loaded:
                detector, info = load_detector(path)
                self._loaded[key] = Model(path, detector.to(self.device), info, self.device)
                while len(self._loaded) > KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]


def about(model: Model) -> str:
    """Two plain sentences on a model."""
    info, ap = model.info, model.info.metrics.get("voc10_ap50")
    names = ", ".join(info.classes[:8]) + (f" and {len(info.classes) - 8} more" if len(info.classes) > 8 else "")
    good = f", AP50 {ap:.2f} on {info.metrics.get('split', 'held-out')} pictures" if isinstance(ap, float) else ""
    text = f"Knows **{names}**. Input {info.size} pixels, trained with {info.timesteps} time steps{good}."
    if model.drawn:
        text += " **It was trained on drawn shapes, not on photographs:** try it with the drawn pictures; on photos it finds nothing."
    return text
