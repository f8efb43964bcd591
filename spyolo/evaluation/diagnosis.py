"""Where users get AP = 0: what is most likely wrong, told before they ask.

The usual reasons are a class list in another order, scores that are all below the floor, and boxes that were never mapped back from the
detector's canvas to the picture. The last is tested rather than guessed: if the same boxes fit the objects far better when read as canvas
pixels, as shares of the picture, or with x and y exchanged, that is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from spyolo.data import Letterbox
from spyolo.evaluation.matching import pairs_within
from spyolo.evaluation.tables import DetectionTable, Floats, Ints, TruthTable, boxes_overlap, listed

CANVASES = (320, 416, 512, 608, 640)  # input sides that detectors commonly have
_PICTURES = 300  # enough to tell, and quick


def suspicions(
    truth: TruthTable,
    detections: DetectionTable,
    classes: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    *,
    confidence: float = 0.5,
    floor: float = 0.0,
    canvases: Iterable[int] = CANVASES,
) -> list[str]:
    """Sentences to warn with; none when nothing looks wrong.

    Args:
        sizes: (width, height) of every picture, in the order of `truth.ids`.
        confidence: of the operating point.
        floor: scores below it have been dropped.
        canvases: sides to try as the detector's input size.
    """
    if not len(truth):
        return [f"the truth holds no object of any of the {len(classes)} classes ({listed(classes)}): check the class list (--classes)"]
    if not len(detections):
        return [f"there are no detections{f' at or above the confidence floor {floor:g}' if floor > 0 else ''}: every AP is 0"]
    found = _about_classes(truth, detections, classes) + _about_scores(detections, confidence)
    reading = _better_reading(truth, detections, np.array(sizes, np.float64).reshape(-1, 2), tuple(canvases))
    if reading is not None:
        name, share, as_given = reading
        found.append(
            f"the boxes do not fit the pictures: read as {name}, they overlap {share:.0%} of the objects by half or more, as given "
            f"only {as_given:.0%}; map them back to picture pixels (undo the letterbox) before saving"
        )
    return found


def _about_classes(truth: TruthTable, detections: DetectionTable, classes: Sequence[str]) -> list[str]:
    there, said = set(truth.labels.tolist()), set(detections.labels.tolist())
    if not there & said:
        return [
            f"no class is both in the truth ({listed([classes[label] for label in sorted(there)])}) and among the detections "
            f"({listed([classes[label] for label in sorted(said)])}): check the class list and its order (--classes)"
        ]
    return []


def _about_scores(detections: DetectionTable, confidence: float) -> list[str]:
    low, high = detections.scores.min(), detections.scores.max()
    found = []
    if high < confidence:
        found.append(f"all scores are below {confidence:g}, where precision and recall are read; the best is {high:.4g}")
    if low < 0 or high > 1:
        found.append(f"scores run from {low:.4g} to {high:.4g}, not within 0..1: AP needs only their order, but a confidence means little")
    return found


def _better_reading(
    truth: TruthTable, detections: DetectionTable, sizes: Floats, canvases: tuple[int, ...]
) -> tuple[str, float, float] | None:
    """(name of the reading, share of objects it covers, share covered as given) when another reading of the boxes fits far better."""
    near = detections.image < _PICTURES
    detections, truth = detections[near], truth.only(truth.image < _PICTURES)
    if not len(truth):
        return None
    given = _best_overlaps(truth, detections.image, detections.boxes)
    readings = [(name, _best_overlaps(truth, detections.image, boxes)) for name, boxes in _readings(detections, sizes, canvases)]
    name, best = max(readings, key=lambda reading: reading[1].mean())
    share, as_given = float((best >= 0.5).mean()), float((given >= 0.5).mean())
    clearly = share > 1.5 * as_given and share > as_given + 0.1
    return (name, share, as_given) if clearly else None


def _readings(detections: DetectionTable, sizes: Floats, canvases: tuple[int, ...]) -> list[tuple[str, Floats]]:
    """(what the coordinates may be, the boxes in picture pixels if they are that)."""
    boxes, (width, height) = detections.boxes, sizes[detections.image].T
    whole = np.stack([width, height, width, height], axis=1)
    readings = [("shares of the picture's sides", boxes * whole), ("y before x", boxes[:, [1, 0, 3, 2]])]
    for side in canvases:
        places = [Letterbox.fit(int(w), int(h), side) for w, h in sizes[:_PICTURES]]
        scale = np.array([place.scale for place in places])[detections.image, None]
        corner = np.array([(place.left, place.top) * 2 for place in places], np.float64).reshape(-1, 4)[detections.image]
        readings.append((f"pixels of a letterboxed {side} x {side} canvas", (boxes - corner) / scale))
        readings.append((f"pixels of a stretched {side} x {side} canvas", boxes * whole / side))
    return readings


def _best_overlaps(truth: TruthTable, image: Ints, boxes: Floats) -> Floats:
    """[M] how much the best detection of the picture, of any class, overlaps each object."""
    detection, candidate = pairs_within(truth.image, image)
    best = np.zeros(len(truth))
    np.maximum.at(best, candidate, boxes_overlap(boxes[detection], truth.boxes[candidate]))
    return best
