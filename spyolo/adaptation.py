"""Learning on the spot: FPTT adapts a copy of a detector's head to a handful of pictures, one update a time step.

    lesson = Lesson(detector, info)
    lesson.add_class("mug")                              # if the detector does not know it yet
    for update in lesson.learn([(image, objects)], rounds=10):
        print(update.number, update.loss)                # lesson.detector has learned; the detector handed in has not
    lesson.undo()
    lesson.save("mug.safetensors")

The body stays as it is: what it sees is general, what it makes of it is learned here. Learning is online, so memory is that of one
step whatever T is, and every update can be watched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spyolo.boxes import Objects
from spyolo.checkpoint import WeightsInfo, save_weights
from spyolo.data.letterbox import fit_picture
from spyolo.detection import DetectionLoss, DetectorSpec, DetectorState, SpikingYOLO
from spyolo.engine import Penalty, part_loss
from spyolo.errors import InputError
from spyolo.learning import FPTT
from spyolo.neurons import detach

Example = tuple[np.ndarray, Objects]  # RGB uint8 [H, W, 3], and its objects in its own pixels
MAX_EXAMPLES = 16
MAX_NEW, MAX_PAST = 20, 40  # new names a lesson, changes it can go back by


@dataclass(frozen=True)
class Update:
    """One online update."""

    number: int  # counts from 1 over the whole lesson
    loss: float  # before the update


@dataclass(frozen=True)
class _Moment:
    """What undo goes back to."""

    spec: DetectorSpec
    classes: tuple[str, ...]
    weights: dict[str, Tensor]  # of the parts that changed afterwards
    updates: int


class Lesson:
    """A copy of a detector that learns.

    Args:
        detector: is copied, and stays as it is.
        info: what its weights file says.
        last_layers: let the two layers of neurons before the heads learn too: slower, and forgets more.
        lr: Adam's learning rate.
        alpha: FPTT's pull toward the running average of the weights.
    """

    def __init__(
        self, detector: SpikingYOLO, info: WeightsInfo, *, last_layers: bool = False, lr: float = 1e-2, alpha: float = 0.1
    ) -> None:
        self.detector, self.info = copy.deepcopy(detector).eval(), info
        self.last_layers, self.lr, self.alpha = last_layers, lr, alpha
        self.updates, self._known = 0, len(info.classes)
        self._past: list[_Moment] = []
        self._forgotten = 0  # moments too old to go back to

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    def add_class(self, name: str) -> int:
        """Teach the head a new name; returns its label. A name it knows is only looked up.

        Raises:
            InputError: an empty or overlong name, or more new ones than a lesson takes.
        """
        name = name.strip()
        if name in self.classes:
            return self.classes.index(name)
        if not 0 < len(name) <= 40:
            raise InputError("a class name has 1 to 40 characters")
        if len(self.classes) - self._known >= MAX_NEW:
            raise InputError(f"a lesson teaches at most {MAX_NEW} new names")
        self._remember()
        self.detector = with_more_classes(self.detector, 1)
        self.info = replace(self.info, spec=self.detector.spec, classes=(*self.classes, name))
        return len(self.classes) - 1

    def learn(self, examples: Sequence[Example], rounds: int = 10) -> Iterator[Update]:
        """Show all examples for T steps, `rounds` times, with one FPTT update after each step.

        Raises:
            InputError: no example, too many, or none with a box; a label that is no class's, or an array of another shape than the
                detector takes. Nothing has been learned then, and there is nothing to undo.
        """
        if not 0 < len(examples) <= MAX_EXAMPLES:
            raise InputError(f"learning here takes 1 to {MAX_EXAMPLES} pictures, got {len(examples)}")
        if not any(len(objects) for _, objects in examples):
            raise InputError("no picture has a box yet; draw one first")
        self._check_labels(examples)
        images, objects = self._batch(examples)
        weights = self._let_learn()
        rule, loss = FPTT(torch.optim.Adam(weights, self.lr), self.alpha, clip=10.0), DetectionLoss()
        targets = loss.assign(self.detector, objects, (self.info.size, self.info.size))
        self._remember()  # last: a lesson that is refused leaves nothing to undo
        for _ in range(rounds):
            state: DetectorState | None = None
            for _ in range(self.info.timesteps):
                rule.optimizer.zero_grad(set_to_none=True)
                incoming = None if state is None else detach(state)
                value, _, state = part_loss(self.detector, loss, images, targets, incoming, 1, "none", Penalty())
                value.backward()
                rule.step()
                self.updates += 1
                yield Update(self.updates, value.item())

    @property
    def depth(self) -> int:
        """How many changes it is away from the first weights; `undo` goes back by one, for the last MAX_PAST."""
        return self._forgotten + len(self._past)

    def can_go_back_to(self, depth: int) -> bool:
        """Whether `undo` leads to a `depth` of before."""
        return depth >= self._forgotten

    def undo(self) -> bool:
        """Back to before the last `learn` or `add_class`; False when there is nothing to take back."""
        if not self._past:
            return False
        moment = self._past.pop()
        weights = self.detector.state_dict() | moment.weights
        if moment.spec != self.detector.spec:
            device = next(self.detector.parameters()).device
            self.detector = SpikingYOLO(moment.spec).to(device).eval()
        self.detector.load_state_dict(weights)
        self.info = replace(self.info, spec=moment.spec, classes=moment.classes)
        self.updates = moment.updates
        return True

    def save(self, path: str | Path) -> None:
        """As a weights file like any other; the metrics of the one it came from are no longer true and left out."""
        notes = self.info.notes | {"adapted_with": "FPTT", "adaptation_updates": self.updates}
        save_weights(path, self.detector, replace(self.info, metrics={}, notes=notes))

    def _remember(self) -> None:
        """Note the parts that may change from here on: the rest of the network never does, and would fill the memory."""
        changing = ("heads.", "neck.fine.", "neck.coarse.") if self.last_layers else ("heads.",)
        weights = {k: v.clone() for k, v in self.detector.state_dict().items() if k.startswith(changing)}
        self._past.append(_Moment(self.detector.spec, self.classes, weights, self.updates))
        if len(self._past) > MAX_PAST:
            del self._past[0]
            self._forgotten += 1

    def _check_labels(self, examples: Sequence[Example]) -> None:
        known = len(self.classes)
        for label in (label for _, objects in examples for label in objects.labels.tolist()):
            if not 0 <= label < known:
                raise InputError(f"label {label} is none of the {known} classes, which count from 0; add_class teaches a new one first")

    def _let_learn(self) -> list[Tensor]:
        """Only the head's weights (and those of the last layers, if wished) take gradients; norms keep their statistics."""
        self.detector.eval().requires_grad_(False)
        parts = [self.detector.heads, *([self.detector.neck.fine, self.detector.neck.coarse] if self.last_layers else [])]
        return [p.requires_grad_(True) for part in parts for p in part.parameters()]

    def _batch(self, examples: Sequence[Example]) -> tuple[Tensor, list[Objects]]:
        device = next(self.detector.parameters()).device
        fitted = [fit_picture(image, self.info.size, self.detector.spec.in_channels) for image, _ in examples]
        images = torch.stack([torch.from_numpy(canvas).permute(2, 0, 1) for canvas, _ in fitted])
        objects = [truth.with_boxes(place.to_canvas(truth.boxes)).to(device) for (_, truth), (_, place) in zip(examples, fitted)]
        return images.to(device), objects


def with_more_classes(detector: SpikingYOLO, more: int) -> SpikingYOLO:
    """The same detector with `more` classes behind its own; what it says of those it knew is unchanged.

    A new class starts with the mean weights and the lowest bias of the known ones: as unlikely as any, and near what tells objects.
    """
    before = detector.spec.num_classes
    grown = SpikingYOLO(replace(detector.spec, num_classes=before + more)).to(next(detector.parameters()).device)
    anchors = [len(a) for a in detector.anchors]
    state = {
        name: _grown(name, value, anchors[int(name.split(".")[1])], before, more) if name.startswith("heads.") else value
        for name, value in detector.state_dict().items()
    }
    grown.load_state_dict(state)
    return grown.eval()


def _grown(name: str, value: Tensor, anchors: int, before: int, more: int) -> Tensor:
    """One head tensor, [anchors * (5 + classes), ...], with rows for more classes after each anchor's own."""
    rows = value.view(anchors, 5 + before, *value.shape[1:])
    known = rows[:, 5:]
    new = known.amin(1, keepdim=True) if name.endswith("bias") else known.mean(1, keepdim=True)
    return torch.cat([rows, new.expand(-1, more, *new.shape[2:])], 1).flatten(0, 1)
