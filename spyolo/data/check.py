"""A data set looked over before it is trained on: classes, boxes, pictures, and pictures that are in two splits."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from spyolo.data.classes import scan_classes
from spyolo.data.kmeans import anchor_fit, box_sides
from spyolo.data.problems import DataWarning
from spyolo.data.voc import UNKNOWN_CLASS, VOCSet
from spyolo.errors import InputError

MOST_NAMED = 10  # of any kind of problem, so many are named
THIN = 8.0  # canvas pixels: half a cell of the finer scale


def check_sets(
    root: str | Path,
    splits: Sequence[str],
    classes: Sequence[str],
    anchors: np.ndarray,
    size: int = 416,
    progress: Callable[[Iterable[int], str], Iterable[int]] = lambda indices, _: indices,
) -> dict[str, Any]:
    """Look over some splits.

    Args:
        root, splits, classes: as for VOCSet.
        anchors: [K, 2] width and height in pixels of a canvas of side `size`.
        progress: wraps the loop over pictures, as tqdm does; gets the indices and the split's name.

    Returns:
        A tree for JSON: `classes`, `splits` (for each, `counts` per class, `boxes` against anchors, `annotations` and `pictures` with
        what is wrong), `duplicates`, and `findings`: a sentence for each thing to look into, none for a good set.
    """
    tree: dict[str, Any] = {"root": str(root), "classes": list(classes), "size": size, "anchors": anchors.tolist(), "splits": {}}
    again = [split for place, split in enumerate(splits) if split in splits[:place]]
    if again:
        raise InputError(f"split {again[0]} is named twice; a set is not checked against itself")
    sets: dict[str, VOCSet] = {}
    prints: dict[str, dict[str, list[str]]] = {}  # split -> fingerprint -> ids
    for split in splits:
        with warnings.catch_warnings(action="ignore", category=DataWarning):  # they are in the report
            sets[split] = voc = VOCSet(root, split, classes)
        pictures, prints[split] = _check_pictures(voc, progress(range(len(voc)), split))
        tree["splits"][split] = {
            "pictures": len(voc),
            "names_found": list(scan_classes(root, split)),
            "unknown_classes": dict(voc.unknown_classes),
            "counts": _counts(voc),
            "boxes": _boxes(voc, anchors, size),
            "annotations": voc.problems,
            "bad_pictures": pictures,
        }
    tree["duplicates"] = _duplicates(sets, prints)
    tree["findings"] = _findings(tree)
    return tree


def _counts(voc: VOCSet) -> dict[str, dict[str, int]]:
    """Per class: objects, difficult ones among them, pictures that show one."""
    counts = {name: {"objects": 0, "difficult": 0, "pictures": 0} for name in voc.classes}
    for i in range(len(voc)):
        objects = voc.objects(i)
        for label in objects.labels.unique().tolist():
            mine, row = objects.labels == label, counts[voc.classes[label]]
            row["objects"] += int(mine.sum())
            row["difficult"] += int((mine & objects.difficult).sum())
            row["pictures"] += 1
    return counts


def _boxes(voc: VOCSet, anchors: np.ndarray, size: int) -> dict[str, Any]:
    """Sizes on the canvas (difficult objects left out) and how the anchors suit them."""
    sides = box_sides(voc, size)
    longer = sides.max(1) if len(sides) else np.zeros(1)
    quantiles = dict(zip(("least", "tenth", "median", "nine_tenths", "most"), np.quantile(longer, (0, 0.1, 0.5, 0.9, 1)).round(1).tolist()))
    thin = float((sides.min(1) < THIN).mean()) if len(sides) else 0.0
    return {"longer_side": quantiles, "thinner_than_8": round(thin, 4), **anchor_fit(sides, anchors)}


def _check_pictures(voc: VOCSet, indices: Iterable[int]) -> tuple[list[str], dict[str, list[str]]]:
    """What is wrong with each bad picture, and the ids by the fingerprint of their pixels."""
    bad: list[str] = []
    prints: dict[str, list[str]] = defaultdict(list)
    for i in indices:
        try:
            image = voc.image(i)
        except InputError as error:
            bad.append(str(error))
            continue
        told = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=12)  # flat pictures of 4 x 6 and 6 x 4 are two
        prints[told.hexdigest()].append(voc.ids[i])
    return bad, dict(prints)


def _duplicates(sets: dict[str, VOCSet], prints: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
    """Ids and pictures that two splits share, and pictures that one split has under several ids."""
    found: dict[str, Any] = {"ids": {}, "pictures": {}, "within": {}}
    for a, b in combinations(sets, 2):
        ids = sorted(set(sets[a].ids) & set(sets[b].ids))
        pairs = [[prints[a][key][0], prints[b][key][0]] for key in prints[a] if key in prints[b]]
        found["ids"] |= {f"{a} and {b}": ids} if ids else {}
        found["pictures"] |= {f"{a} and {b}": pairs} if pairs else {}
    for split, pictures in prints.items():
        groups = [ids for ids in pictures.values() if len(ids) > 1]
        found["within"] |= {split: groups} if groups else {}
    return found


def _findings(tree: dict[str, Any]) -> list[str]:
    """A sentence for each thing to look into."""
    found = []
    for split, part in tree["splits"].items():
        told = [*_class_findings(part, tree["classes"]), *_sample_findings(part), *_box_findings(part["boxes"], tree["size"])]
        found += [f"{split}: {line}" for line in told]
    duplicates = tree["duplicates"]
    for where, ids in duplicates["ids"].items():
        found.append(f"{where} share {len(ids)} image ids: {_some(ids)}")
    for where, pairs in duplicates["pictures"].items():
        found.append(f"{where} share {len(pairs)} pictures: {_some([f'{a} = {b}' if a != b else a for a, b in pairs])}")
    for split, groups in duplicates["within"].items():
        found.append(f"{split} has pictures under several ids, {len(groups)} of them: {_some([' = '.join(group) for group in groups])}")
    return found


def _class_findings(part: dict[str, Any], classes: Sequence[str]) -> Iterator[str]:
    absent = [name for name, row in part["counts"].items() if not row["objects"]]
    if not set(classes) & set(part["names_found"]):
        yield f"no class of the list occurs; its annotations name {_some(part['names_found'])}. AP would be 0: see --classes"
    elif absent:
        yield f"no object of {_some(absent)}"
    unknown = sorted(part["unknown_classes"].items(), key=lambda item: -item[1])
    if unknown:
        total = sum(count for _, count in unknown)
        yield f"{total} objects of classes not in the list are left out: {_some([f'{name} ({count})' for name, count in unknown])}"


def _sample_findings(part: dict[str, Any]) -> Iterator[str]:
    for kind, problem in part["annotations"].items():
        if kind != UNKNOWN_CLASS:
            yield f"{problem['count']} x {kind}; first: {problem['first']}"
    if part["bad_pictures"]:
        yield f"pictures that cannot be used: {len(part['bad_pictures'])}; first: {part['bad_pictures'][0]}"


def _box_findings(boxes: dict[str, Any], size: int) -> Iterator[str]:
    if boxes["boxes"] and boxes["under_quarter"] > 0.05:
        yield f"{boxes['under_quarter']:.0%} of the boxes are like no anchor (best IoU under 0.25); see tools/anchors.py"
    if boxes["thinner_than_8"] > 0.1:
        yield f"{boxes['thinner_than_8']:.0%} of the boxes are thinner than {THIN:g} pixels at {size}: train larger"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more if names else "none"
