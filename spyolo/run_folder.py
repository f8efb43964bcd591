"""What a run leaves behind: resolved config, log (CSV and TensorBoard), curves. Every file is rewritten whole from the run's history,
so that an interrupted and resumed run shows no gap and no line twice.
"""

from __future__ import annotations

import csv
import io
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from spyolo.errors import InputError
from spyolo.files import is_there, replace_file, write_whole
from spyolo.tensors import read_tensors

Row = dict[str, float | int]
COLUMNS = (
    "epoch", "updates", "lr", "loss", "box", "objectness", "classes", "firing_rate", "dead_layers", "saturated_layers", "skipped",
    "seconds", "voc10_ap50", "voc07_ap50", "voc10_ap50_95",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What a kind of run logs: columns of its CSV in order, those of them that are measured on held-out data, panels of its curves."""

    columns: tuple[str, ...]
    measured: tuple[str, ...]
    panels: tuple[tuple[tuple[str, ...], str], ...]  # columns drawn together, and their title; four of them


DETECTOR = Layout(
    COLUMNS,
    ("voc10_ap50", "voc07_ap50", "voc10_ap50_95"),
    (
        (("loss", "box", "objectness", "classes"), "loss"),
        (("voc10_ap50", "voc07_ap50", "voc10_ap50_95"), "AP on the validation split"),
        (("firing_rate",), "mean firing rate"),
        (("lr",), "learning rate"),
    ),
)


class RunFolder:
    """Paths and writers of one run folder."""

    def __init__(self, path: str | Path, layout: Layout = DETECTOR) -> None:
        self.path, self.layout = Path(path), layout
        self.config = self.path / "config.yaml"
        self.log = self.path / "log.csv"
        self.last = self.path / "last.safetensors"
        self.previous = self.path / "previous.safetensors"
        self.best = self.path / "best.safetensors"
        self.final = self.path / "final.safetensors"
        self.curves = self.path / "curves.png"
        self.metrics = self.path / "metrics.json"
        self.pictures = self.path / "predictions.png"
        self._board: Path | None = None  # the file of events that this process goes on with

    def sweep(self) -> None:
        """Remove what a kill in the middle of a write left behind: our own temporary files (see `replace_file`), and safetensors', which
        writes a file beside the one it is given."""
        for pattern in (".*.part", ".tmp??????"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    @property
    def has_checkpoint(self) -> bool:
        """Raises InputError where the folder may not be looked into."""
        return is_there(self.last) or is_there(self.previous)

    def stamp(self) -> tuple[int, int] | None:
        """Changes whenever the last checkpoint is replaced; None when there is none."""
        try:
            found = self.last.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def last_good(self) -> str:
        """Half a sentence for a run that must stop: where to go on from."""
        return f"the last good checkpoint is {self.last}" if self.last.exists() else "there is no checkpoint yet"

    def load_last(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The last checkpoint, or the one before it where a disk has spoiled the last.

        Raises:
            InputError: neither can be read.
        """
        try:
            return read_tensors(self.last)
        except InputError as error:
            if not self.previous.exists():
                raise
            found = read_tensors(self.previous)
            warnings.warn(f"{error}; going on from {self.previous}", stacklevel=2)
            return found

    def record(self, history: Sequence[Row]) -> None:
        """The log, its events for TensorBoard, and its curves, with a new newest row. Events and curves that cannot be written are a
        warning: they are no reason to lose the checkpoint that comes next, and the next epoch makes them from the history.

        Raises:
            InputError: the log cannot be written.
        """
        self.write_log(history)
        for adorn in (self.board, self.plot):
            try:
                adorn(history)
            except InputError as error:
                warnings.warn(f"{error}; the run goes on without", stacklevel=2)

    def write_log(self, history: Sequence[Row]) -> None:
        """The whole history as CSV; an empty cell where an epoch was not evaluated."""
        out = io.StringIO()
        writer = csv.DictWriter(out, self.layout.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in history)
        write_whole(self.log, out.getvalue())

    def board(self, history: Sequence[Row]) -> None:
        """Send the newest row to TensorBoard. The first call of a process, and one after a failure, sends the whole history into a new file
        in place of those that earlier ones left: a reader orders files by the clock in their names, which may have been put back meanwhile.
        Written here and not by torch's SummaryWriter, whose thread dies of a full disk with a traceback.

        Raises:
            InputError: the file cannot be written; earlier ones stay until there is a new one.
        """
        if self._board is None:
            path = self.path / f"events.out.tfevents.{int(time.time()):010d}.spyolo"
            self._board = write_whole(path, events(history, self.layout, begin=True))
            for other in self.path.glob("events.out.tfevents.*"):
                if other != path:
                    other.unlink(missing_ok=True)
            return
        path, self._board = self._board, None
        try:
            with open(path, "ab") as file:
                file.write(events(history[-1:], self.layout))
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror or error})") from error
        self._board = path

    def plot(self, history: Sequence[Row]) -> None:
        """The layout's panels over the epochs, as one picture."""
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        axes = figure.subplots(2, 2)
        for ax, (names, title) in zip(axes.flat, self.layout.panels):
            for name in names:
                points = [(r["epoch"], r[name]) for r in history if name in r]
                if points:
                    ax.plot(*zip(*points), marker="." if len(points) < 60 else None, label=name)
            ax.set(title=title, xlabel="epoch")
            ax.grid(alpha=0.3)
            if len(ax.lines) > 1:
                ax.legend(frameon=False)
        replace_file(self.curves, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def events(rows: Sequence[Row], layout: Layout, begin: bool = False) -> bytes:
    """Rows as TensorBoard's records, a scalar each; `begin`: after the one that a file starts with."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import scalar

    out, now = io.BytesIO(), time.time()
    writer = RecordWriter(out)
    if begin:
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for row in rows:
        for name, value in row.items():
            if name != "epoch":
                summary = scalar(("val/" if name in layout.measured else "train/") + name, value)
                writer.write(Event(wall_time=now, step=int(row["epoch"]), summary=summary).SerializeToString())
    return out.getvalue()
