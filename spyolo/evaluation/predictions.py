"""Predictions in: any detector's file, as COCO results JSON (coco_json) or as VOC's own text files (voc_text), checked row by row.

Both formats are written with all digits, so that a file that is read back is judged exactly like the detections it was written from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from spyolo.errors import InputError
from spyolo.evaluation.coco_json import read_coco_json
from spyolo.evaluation.tables import DetectionTable, Row, listed
from spyolo.evaluation.voc_text import read_voc_text


def read_predictions(
    path: str | Path, ids: Sequence[str], classes: Sequence[str], *, allow_duplicates: bool = False, left_out: Collection[str] = ()
) -> DetectionTable:  # fmt: skip
    """Detections of a COCO results file, or of a folder of VOC text files.

    Args:
        path: a JSON file, or a folder that holds `comp4_det_test_CLASS.txt` and the like.
        ids: the pictures that are judged, in the split's order.
        classes: the detector's classes, in its order.
        allow_duplicates: judge rows that are there twice as they are (the second is a false positive) instead of refusing the file.
        left_out: pictures that are not judged, although they were predicted on: their rows are read, and dropped.

    Raises:
        InputError: the file is missing, cut short or of another shape; a picture or class is unknown; a row has a wrong type, a score that
            is no number, a box that is upside down, or is there twice. The message names file, row and field.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such predictions file or folder")
    rows = read_voc_text(path, classes) if path.is_dir() else read_coco_json(path, classes)
    rows = [row for row in rows if row.image_id not in left_out]
    return rows_to_table(rows, ids, classes, str(path), allow_duplicates)


def rows_to_table(rows: list[Row], ids: Sequence[str], classes: Sequence[str], path: str, allow_duplicates: bool) -> DetectionTable:
    """The checks that every format shares."""
    place = {name: index for index, name in enumerate(ids)}
    strangers: dict[str, str] = {}
    for row in rows:
        if row.image_id not in place:
            strangers.setdefault(row.image_id, row.where)
    if strangers:
        raise InputError(
            f"{path}: {len(strangers)} image ids are not among the {len(ids)} pictures judged: {listed(list(strangers))} "
            f"(first at {next(iter(strangers.values()))}); name the split the predictions were made on with --split"
        )
    table = DetectionTable(
        ids=tuple(ids),
        image=np.array([place[row.image_id] for row in rows], np.int64),
        boxes=np.array([row.box for row in rows], np.float64).reshape(-1, 4),
        labels=np.array([row.label for row in rows], np.int64),
        scores=np.array([row.score for row in rows], np.float64),
    )
    problem = table.first_problem(len(classes))
    if problem is not None:
        number, what = problem
        raise InputError(f"{rows[number].where} (picture {rows[number].image_id}): {what}; correct it or leave the row out")
    repeated = [] if allow_duplicates else table.duplicates()
    if repeated:
        first, second = repeated[0]
        raise InputError(
            f"{path}: {len(repeated)} rows are there twice (same picture, class, box and score), the first at {rows[first].where} "
            f"and {rows[second].where}; remove them, or judge them as false positives with --allow-duplicates"
        )
    return table
