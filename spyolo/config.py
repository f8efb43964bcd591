"""Everything a training run depends on, in one frozen, checked, printable place.

A run is a function of (config, data, seed). Presets are YAML files in spyolo/presets/; a file or a command line changes fields by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from spyolo.errors import InputError
from spyolo.files import one_line
from spyolo.settings import MOST_SEED, Settings, load_settings, names_in, option

UNREAD = {  # fields that a source makes nothing of (spyolo/builders.py): one that is set would pass for obeyed
    "voc": ("shards_from", "lanes", "window_ms"),
    "shards": ("cache", "window_ms"),
    "events": ("cache", "shards_from", "lanes", "mosaic", "plain_epochs", "colour"),
}
AUGMENTED, MOSAIC, FPTT = ("augment", ("train", "mosaic")), ("augment", ("mosaic",)), ("rule", ("fptt",))
OF_SPIKES = ("threshold", "surrogate", "detach_reset", "start", "rate_weight", "rate_low", "rate_high")
PRESETS = Path(__file__).parent / "presets"
MOST_SIZE, MOST_TIMESTEPS = 4096, 1024  # wherever a side in pixels or a number of steps is asked for, or read from a file


@dataclass(frozen=True)
class Network:
    detector: str = option("spyv4_lite", "detector", choices=("spyv4", "spyv4_lite", "yolov4_tiny"))
    width: float = option(1.0, "multiplier on all channels", low=0.05, high=8)
    in_channels: int | None = option(None, "channels of the input; none: 3 for pictures, 2 for events", low=1, high=64)
    depth: int = option(1, "inner cells of each CSP block beyond the first", low=0, high=16)
    readout: str | None = option(None, "head logits over time; none: the detector's own", choices=("last", "mean", "leaky"))
    kind: str | None = option(None, "hidden units; none: the detector's own", choices=("ltc", "lif", "relu"))
    gate: str | None = option(
        None, "what sets tau; none: the detector's own", choices=("conv", "depthwise", "pointwise", "static")
    )
    norm: str = option("batch", "norm of the currents, shared over the steps", choices=("batch", "renorm"))
    sync_norm: bool = option(False, "several processes: take norm statistics over the batches of all (CUDA only)")
    freeze_norms: bool = option(False, "norms use their running statistics and leave them alone: for warm starts with very small batches")
    threshold: float | None = option(None, "firing threshold; none: the detector's own", low=1e-3)
    surrogate: str | None = option(
        None, "stand-in for the derivative of a spike; none: the detector's own",
        choices=("multi_gaussian", "triangle", "rectangle", "arctan", "fast_sigmoid", "sigmoid_prime", "tanh_prime"),
    )  # fmt: skip
    detach_reset: bool = option(False, "keep the gradient out of the reset")
    start: str = option("zeros", "membranes before the first step", choices=("zeros", "uniform"))
    anchors: tuple[float, ...] | None = option(None, "w,h pairs at 416 pixels (tools/anchors.py fits them); none: YOLOv4-tiny's six")


@dataclass(frozen=True)
class Dataset:
    source: str = option("voc", "what the data are: a VOC devkit, WebDataset shards, recordings of an event camera",
                         choices=("voc", "shards", "events"))  # fmt: skip
    data: str = option("", "folder that holds VOCdevkit, the shards' folders, or the recordings' folders")
    train: str = option("2007:train+2012:trainval", "splits trained on")
    val: str = option("2007:val", "splits measured on")
    classes: tuple[str, ...] | None = option(None, "class names in order (command line: also voc, sample, a file); none: VOC's twenty")
    size: int = option(416, "input side in pixels, a multiple of 32", low=32, high=MOST_SIZE)
    augment: str = option("mosaic", "augmentation preset", choices=("eval", "train", "mosaic"))
    scale: tuple[float, ...] = option((0.5, 1.5), "low,high: size of a picture against letterboxed", low=0.05, high=10, only=AUGMENTED)
    mosaic: float = option(0.5, "share of mosaics under the preset of that name", low=0, high=1, only=MOSAIC)
    colour: float = option(1.0, "strength of colour changes", low=0, high=3, only=AUGMENTED)
    plain_epochs: int = option(0, "last epochs without mosaics", low=0, only=MOSAIC)
    cache: str = option("none", "keep decoded pictures", choices=("none", "ram", "disk"))
    workers: int = option(-1, "loader processes; -1: chosen by the number of cores", low=-1)
    strict: bool = option(False, "fail on a bad sample instead of warning and counting (shards and recordings always do)")
    shards_from: str = option("", "shards: where to fetch one that is not here, {} for split/name: https://host/{}, pipe:COMMAND {}")
    lanes: int = option(1, "shards: streams they are dealt into; as many as processes, and each reads shards of its own", low=1)
    window_ms: float = option(50.0, "events: length of a window, one step", low=0.1, high=10_000)
    limit: int = option(0, "use only the first so many training pictures (events: recordings); 0: all", low=0)
    val_limit: int = option(0, "measure on the first so many pictures (events: recordings) only; 0: all", low=0)


@dataclass(frozen=True)
class Learning:
    rule: str = option("fptt", "learning rule", choices=("fptt", "bptt"))
    form: str = option("feddyn", "form of FPTT", choices=("feddyn", "paper", "reference"), only=FPTT)
    alpha: float = option(0.1, "FPTT: pull toward the running average", low=1e-9, only=FPTT)
    timesteps: int = option(3, "steps each picture is shown, in training and evaluation", low=1, high=MOST_TIMESTEPS)
    parts: int = option(0, "updates a sequence (FPTT-K); 0: one a step (FPTT), one a sequence (BPTT)", low=0)
    clip: float = option(10.0, "global L2 norm the task's gradient is clipped to; 0: not", low=0)
    optimizer: str = option("adamw", "optimizer", choices=("adamw", "adam", "adamax", "sgd"))
    lr: float = option(1e-3, "peak learning rate", low=0)
    lr_final: float = option(0.02, "last learning rate, as a share of the peak (cosine)", low=0, high=1)
    warmup: float = option(1.0, "epochs of linear warm-up", low=0)
    weight_decay: float = option(5e-4, "decay of convolution weights", low=0)
    momentum: float = option(0.9, "SGD momentum, or Adam's beta1", low=0, high=0.9999)
    epochs: int = option(30, "passes over the training set", low=1)
    batch: int = option(16, "pictures a batch, over all processes", low=1)
    accumulate: int = option(1, "pieces in which each process runs its share of a batch, one after the other: less memory", low=1)
    ema: float = option(0.998, "decay of the weights' moving average; 0: none", low=0, high=0.99999)
    amp: str = option("auto", "autocast of convolutions, not of states; auto: where the device has bf16", choices=("auto", "bf16", "none"))


@dataclass(frozen=True)
class Loss:
    box_gain: float = option(3.0, "weight of the CIoU term", low=0)
    objectness_gain: float = option(1.0, "weight of the objectness term", low=0)
    class_gain: float = option(4.0, "weight of the class term", low=0)
    smoothing: float = option(0.0, "label smoothing of the class targets", low=0, high=0.5)
    iou_target: float = option(0.0, "objectness target of a positive: 0 means 1, 1 means its box's CIoU, at least 0", low=0, high=1)
    shape_factor: float = option(4.0, "largest ratio of sides at which an anchor answers for an object", low=1)
    rate_weight: float = option(0.0, "weight of the firing-rate regulariser", low=0)
    rate_low: float = option(0.02, "channels that fire less are pulled up", low=0, high=1)
    rate_high: float = option(0.2, "channels that fire more are pulled down", low=0, high=1)


@dataclass(frozen=True)
class Evaluation:
    weights_of: str = option("ema", "weights evaluated and kept as best", choices=("w", "average", "ema"))
    recalibrate: int = option(16, "batches over which norm statistics are taken anew for the evaluated weights; 0: not", low=0)
    eval_every: int = option(5, "epochs between evaluations (the last epoch always is)", low=1)
    eval_limit: int = option(0, "while training, evaluate on the first so many pictures only; 0: all", low=0)
    confidence: float = option(0.005, "floor on scores", low=0, high=1)
    nms_iou: float = option(0.5, "overlap above which the worse box of a class is dropped", low=0, high=1)
    max_detections: int = option(100, "boxes a picture at most", low=1)
    vote_iou: float = option(0.0, "overlap from which boxes of a class vote on where the better one is; 0: they do not", low=0, high=1)


@dataclass(frozen=True)
class Run:
    out: str = option("runs/train", "run folder")
    seed: int = option(0, "seed of weights, order and augmentation", low=0, high=MOST_SEED)
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...")
    init: str = option("", "weights file to start from: its tensors that fit (a warm start)")
    save_seconds: float = option(60.0, "seconds between checkpoints inside an epoch", low=0)
    check_every: int = option(10, "batches between looks for values that are not finite (before every checkpoint too)", low=1)
    nonfinite: str = option("stop", "on such a value; skip leaves the batch out and counts it", choices=("stop", "skip"))
    max_minutes: float = option(0.0, "stop (resumably) after so many minutes; 0: when done", low=0)


@dataclass(frozen=True)
class Config(Settings):
    """A run. Sections only group the fields for reading."""

    network: Network = Network()
    dataset: Dataset = Dataset()
    learning: Learning = Learning()
    loss: Loss = Loss()
    evaluation: Evaluation = Evaluation()
    run: Run = Run()

    @property
    def channels(self) -> int:
        """Channels of what the source delivers."""
        return 2 if self.source == "events" else 3

    @property
    def unit(self) -> str:
        """The kind of its hidden units."""
        return self.kind or ("relu" if self.detector == "yolov4_tiny" else "ltc")

    def unread(self, name: str) -> str:
        """Of a plain network, what concerns spikes too; a recording is shown in steps whatever the units are."""
        if self.unit == "relu" and (name in OF_SPIKES or (name == "timesteps" and self.source != "events")):
            return "it goes with units that spike, not with relu"
        return super().unread(name)

    def consistent(self, where: str) -> Self:
        """Checks that need more than one field."""
        if self.size % 32:
            raise InputError(f"{where}: size must be a multiple of 32, got {self.size}")
        if self.parts > self.timesteps:
            raise InputError(f"{where}: parts ({self.parts}) cannot exceed timesteps ({self.timesteps})")
        if len(self.scale) != 2 or self.scale[0] > self.scale[1]:
            raise InputError(f"{where}: scale needs two numbers, the lower first, got {list(self.scale)}")
        if self.source == "shards" and self.batch % self.lanes:
            raise InputError(f"{where}: batch ({self.batch}) must be a multiple of lanes ({self.lanes})")
        for name in UNREAD[self.source]:
            usual, value = getattr(Dataset, name), getattr(self, name)
            if value != usual:
                must = f"must be {usual}" if usual != "" else "must be left out"
                raise InputError(f"{where}: source {self.source} makes nothing of {name}: {name} {must}, got {one_line(value)}")
        if self.in_channels is not None and self.in_channels != self.channels:
            raise InputError(f"{where}: in_channels must be {self.channels} with source {self.source}, got {self.in_channels}")
        if self.lanes > 1 and self.limit:
            raise InputError(f"{where}: lanes ({self.lanes}) deal out whole shards; with limit ({self.limit}), lanes must be 1")
        if self.gate is not None and self.unit != "ltc":
            raise InputError(f"{where}: gate {self.gate} sets tau of ltc units, {self.unit} units have none: leave gate out")
        if self.sync_norm and self.norm != "batch":
            raise InputError(f"{where}: sync_norm goes with norm batch, not with {self.norm}")
        if self.weights_of == "average" and self.rule != "fptt":
            raise InputError(f"{where}: weights_of average goes with rule fptt; {self.rule} keeps none")
        if self.rate_low > self.rate_high:
            raise InputError(f"{where}: rate_low ({self.rate_low:g}) cannot exceed rate_high ({self.rate_high:g})")
        names = self.classes or ()
        if len(set(names)) < len(names) or "" in names:
            raise InputError(f"{where}: classes must be names, each once, got {list(names)}")
        anchors = self.anchors
        if anchors is not None and (len(anchors) != 12 or min(anchors) <= 0):
            raise InputError(f"{where}: anchors needs six pairs of positive sides, got {list(anchors)}")
        return self


FIELDS = Config.fields()


def load_config(path: str | Path, base: Config | None = None) -> Config:
    """A config from a YAML file, see `load_settings`."""
    return load_settings(path, base or Config(), PRESETS)


def preset_names() -> list[str]:
    return names_in(PRESETS)


def load_preset(name: str) -> Config:
    """A preset by name, or a YAML file by path."""
    return load_config(name if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml")
