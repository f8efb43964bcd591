"""What is made of detections: COCO results, JSON lines, CSV, VOC XML, annotated video, and other libraries' types.

Tables are written line by line into a file beside the final one, which takes its place when the writer closes: also after Ctrl-C, an
error or on a full disk, so that nothing already found is lost. One to which nothing was added leaves what was there before.
"""

from __future__ import annotations

import csv
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TextIO

import cv2
import numpy as np

from spyolo.boxes import Detections
from spyolo.data.annotation import Annotation, Thing, write_annotation
from spyolo.data.orientation import stored_box, turned_size
from spyolo.errors import InputError
from spyolo.evaluation.coco_json import coco_entries

GUESSED_FPS = 25.0  # of a source that does not say
COLUMNS = ("picture", "frame", "class", "score", "x1", "y1", "x2", "y2")


def rows(found: Detections, classes: Sequence[str]) -> Iterator[tuple[str, float, list[float]]]:
    """(class, score, [x1, y1, x2, y2]) of each detection, rounded to what is worth writing: 4 and 2 digits."""
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()):
        yield classes[label], round(score, 4), [round(v, 2) for v in box]


class Whole:
    """A context manager that fills `path` + ".part" and puts it in place when it closes.

    Raises:
        InputError: the folder or the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")  # the ending stays: video writers go by it
        with self.writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.part.unlink(missing_ok=True)
            if self.path.is_dir():
                raise InputError(f"{self.path} cannot be written: a folder has its name")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the system refuses inside is an InputError that names the file."""
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror or error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self.writing():
            if self.part.exists():
                os.replace(self.part, self.path)


class Table(Whole, ABC):
    """A text file that grows by `add(picture, size, found, frame)`; base of the three below."""

    pictures = 0  # added so far

    def __init__(self, path: str | Path, classes: Sequence[str]) -> None:
        super().__init__(path)
        self.classes = classes
        with self.writing():
            self.file: TextIO = open(self.part, "w", encoding="utf-8", newline="", buffering=1)  # noqa: SIM115 (closed below)

    def add(self, picture: str, size: tuple[int, int], found: Detections, frame: int | None = None) -> None:
        """Write what was found in one picture, or in one frame of a video. Raises InputError where the disk is full: then close."""
        with self.writing():
            self.write(picture, size, found, frame)
        self.pictures += 1

    @abstractmethod
    def write(self, picture: str, size: tuple[int, int], found: Detections, frame: int | None) -> None:
        """The lines of one picture or frame."""

    def finish(self) -> None:
        """What comes after the last picture."""

    def close(self) -> None:
        if not self.file.closed:
            try:
                try:
                    self.finish()
                finally:
                    self.file.close()
            except OSError:  # a line that found no room, which `add` has told: what came of it goes, the lines before it stay
                self.drop_torn_line()
            if not self.pictures:  # a source that gave nothing, and the results of the last one are still there
                self.part.unlink(missing_ok=True)
            super().close()

    def drop_torn_line(self) -> None:
        with self.writing():
            os.truncate(self.part, self.part.read_bytes().rfind(b"\n") + 1)


class JSONLines(Table):
    """One line a picture or frame: {"picture", "frame", "width", "height", "detections": [{"class", "score", "box"}]}."""

    def write(self, picture: str, size: tuple[int, int], found: Detections, frame: int | None) -> None:
        said = [{"class": name, "score": score, "box": box} for name, score, box in rows(found, self.classes)]
        line = {"picture": picture, "frame": frame, "width": size[0], "height": size[1], "detections": said}
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")


class COCOResults(Table):
    """COCO's results format (`evaluation.coco_json`), one line a detection; `picture` is the image id."""

    def __init__(self, path: str | Path, classes: Sequence[str]) -> None:
        super().__init__(path, classes)
        with self.writing():
            self.file.write("[\n")
        self.between = ""

    def write(self, picture: str, size: tuple[int, int], found: Detections, frame: int | None) -> None:
        for entry in coco_entries(picture, found, self.classes):
            self.file.write(self.between + entry)
            self.between = ",\n"

    def finish(self) -> None:
        self.file.write("\n]\n")

    def drop_torn_line(self) -> None:
        """Also ends the list, in the room that the last line's end had."""
        super().drop_torn_line()
        with self.writing(), open(self.part, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(end - 2)
            file.write(b"\n]" if end > 2 else b"[]")


class CSVTable(Table):
    """One line a detection, under a head of COLUMNS; boxes in picture pixels."""

    def __init__(self, path: str | Path, classes: Sequence[str]) -> None:
        super().__init__(path, classes)
        self.csv = csv.writer(self.file, lineterminator="\n")
        with self.writing():
            self.csv.writerow(COLUMNS)

    def write(self, picture: str, size: tuple[int, int], found: Detections, frame: int | None) -> None:
        self.csv.writerows((picture, frame, name, score, *box) for name, score, box in rows(found, self.classes))


def write_voc(
    path: Path, picture: str, size: tuple[int, int], found: Detections, classes: Sequence[str], orientation: int = 1
) -> None:  # fmt: skip
    """One VOC annotation of what was found: a start for boxing by hand.

    Args:
        size, found: of the picture as shown.
        orientation: its EXIF orientation; what is written is of the raster as stored, which is what is trained on.
    """
    things = [Thing(name, stored_box((box[0], box[1], box[2], box[3]), size, orientation)) for name, _, box in rows(found, classes)]
    write_annotation(path, Annotation(*turned_size(size, orientation), things), picture, path.parent.name)


class VideoFile(Whole):
    """An annotated video: `add(frame)` RGB uint8 [H, W, 3]. A `.webm` (VP8) plays in every browser, an `.mp4` (MPEG-4) in players.

    Raises:
        InputError: another ending, or a file that cannot be written (closing: one that was not written to its end).
    """

    CODECS: ClassVar = {".webm": "VP80", ".mp4": "mp4v", ".avi": "MJPG"}

    def __init__(self, path: str | Path, fps: float) -> None:
        super().__init__(path)
        if self.path.suffix.lower() not in self.CODECS:
            raise InputError(f"{self.path}: videos are written as {', '.join(self.CODECS)}")
        self.fps, self.size, self.frames = fps, (0, 0), 0
        self.writer: cv2.VideoWriter | None = None

    def add(self, frame: np.ndarray) -> None:
        """Frames after the first are fitted to its size (codecs want even sides: an odd last row or column is cut)."""
        if self.writer is None:
            self.size = frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2
            code = cv2.VideoWriter.fourcc(*self.CODECS[self.path.suffix.lower()])
            self.writer = cv2.VideoWriter(str(self.part), cv2.CAP_FFMPEG, code, self.fps if self.fps > 0 else GUESSED_FPS, self.size)
            if not self.writer.isOpened():
                raise InputError(f"{self.path} cannot be written as a video of {self.size[0]} x {self.size[1]}; try --video-format mp4")
        if frame.shape[1] // 2 * 2 != self.size[0] or frame.shape[0] // 2 * 2 != self.size[1]:
            frame = cv2.resize(frame, self.size)
        self.writer.write(cv2.cvtColor(frame[: self.size[1], : self.size[0]], cv2.COLOR_RGB2BGR))
        self.frames += 1

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()
            self.writer = None
            if not self.whole():  # OpenCV tells nobody that a frame was not written
                raise InputError(
                    f"{self.path} was not written: of its {self.frames} frames the last cannot be read back; is the disk full? "
                    f"What there is of it stays in {self.part.name}"
                )
            super().close()

    def abandon(self) -> None:
        """Let go of the film, and of what there is of it: closing does nothing then."""
        if self.writer is not None:
            self.writer.release()
            self.writer = None
        self.part.unlink(missing_ok=True)

    def whole(self) -> bool:
        """Whether the last frame can be found and read: not so where a video is cut off."""
        film = cv2.VideoCapture(str(self.part))
        film.set(cv2.CAP_PROP_POS_FRAMES, self.frames - 1)
        read, _ = film.read()
        place = film.get(cv2.CAP_PROP_POS_FRAMES)
        film.release()
        return read and abs(place - self.frames) <= 2  # uneven frame rates round a frame up or down


TABLES: dict[str, Callable[[str | Path, Sequence[str]], Table]] = {"coco": COCOResults, "jsonl": JSONLines, "csv": CSVTable}


def to_supervision(found: Detections, classes: Sequence[str]) -> Any:
    """As `supervision.Detections`, with the names under data["class_name"].

    Raises:
        InputError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise InputError("supervision is not installed: pip install supervision") from error
    labels = found.labels.numpy().astype(int)
    return supervision.Detections(
        xyxy=found.boxes.numpy().astype(np.float32), confidence=found.scores.numpy().astype(np.float32), class_id=labels,
        data={"class_name": np.array([classes[i] for i in labels], dtype=str)},
    )  # fmt: skip
