"""Everything a run on sequences depends on; machinery and manners are those of the detector's config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from spyolo.errors import InputError
from spyolo.learning import FORMS, RULES
from spyolo.learning.auxiliary import POLICIES, SCALINGS
from spyolo.neurons import CONV_GATES, DENSE, DENSE_GATES, READOUTS, SURROGATES
from spyolo.neurons.readout import READS
from spyolo.settings import MOST_SEED, Settings, load_settings, names_in, option

PRESETS = Path(__file__).parent / "presets"
INITS = ("torch", "xavier")  # anything else is a weights file
SUPERVISE = ("last", "parts", "every", "auxiliary")
FPTT, LTC, EVENTS = ("rule", ("fptt",)), ("cell", ("ltc",)), ("task", ("gesture", "cifar10dvs", "nmnist"))
OPEN = ("task", ("adding", "rmnist", "mnist", "fashion", "nmnist", "cifar10dvs", "gesture", "char", "word"))
PICTURES = ("task", ("smnist", "psmnist", "rmnist", "mnist", "fashion"))
THRESHOLDS = ("ltc", "lif", "alif", "snu", "ssnu")  # of DENSE, those that have one
AUXILIARY = ("aux_policy", "aux_scaling", "aux_warm_up")  # of no use without `supervise auxiliary`


@dataclass(frozen=True)
class Data:
    task: str = option("adding", "what is learned")  # names: spyolo.sequence.tasks.TASKS
    data: str = option("", "folder or file of the data; none: under the environment variable SPYOLO_DATA, by the task's name")
    download: bool = option(False, "let torchvision fetch MNIST or Fashion-MNIST if it is not there", only=PICTURES)
    timesteps: int = option(0, "steps a sequence, where the task leaves it open; 0: its own number", low=0, only=OPEN)
    frames_by: str = option("time", "event data: frames of equal time or of equal numbers", choices=("time", "count"), only=EVENTS)
    shrink: int = option(1, "event data: sum squares of so many pixels a side into one", low=1, high=128, only=EVENTS)
    test_speakers: tuple[str, ...] = option(("theo", "yweweler"), "spoken digits: speakers held out", only=("task", ("digits",)))
    first_chord: bool = option(True, "piano rolls: ask for the first chord too, from silence", only=("task", ("jsb", "nottingham")))
    judge: str = option(
        "test", "what weights are judged by while training, and the best chosen: the test, or a validation part - of piano rolls and texts "
        "their own, of the adding problem another draw, else a tenth of the training sequences, which are then not trained on",
        choices=("test", "validation"),
    )  # fmt: skip
    limit: int = option(
        0, "use only so many training sequences: the first, of event data and digits some of each class; text: windows over all streams; "
        "0: all", low=0,
    )  # fmt: skip
    test_limit: int = option(0, "measure on so many sequences only, chosen likewise; 0: all", low=0)


@dataclass(frozen=True)
class Network:
    cell: str = option("ltc", "neurons", choices=DENSE)
    conv: str = option("", "convolutional layers before the dense ones: 32c3 is 32 channels 3x3, p2 a pooling: 32c3-128c3-p2-256c3-p2")
    hidden: tuple[int, ...] = option((128,), "sizes of the dense layers, bottom to top", low=1, high=65536)
    recurrent: bool = option(True, "recurrent connections in the dense layers")
    gate: str = option("concat_linear", "LTC, dense layers: what sets tau", choices=DENSE_GATES, only=LTC)
    conv_gate: str = option("conv", "LTC, convolutional layers: what sets tau", choices=CONV_GATES, only=LTC)
    gate_bias: float | None = option(
        None, "LTC, dense layers: first bias of the gate; none: the gate's own (init xavier: 0); -3 starts with slow neurons, tau = 0.05; "
        "a warm start brings its own", only=LTC,
    )
    slowest: int = option(
        0, "LTC, dense layers: first biases of the gate such that the neurons' time constants are spread evenly from 2 to so many steps "
        "(Tallec & Ollivier 2018), in place of gate_bias; 0: not", low=0, high=1_000_000,
    )  # fmt: skip
    adaptive: bool = option(False, "LTC: adaptive threshold", only=LTC)
    threshold: float | None = option(None, "firing threshold; none: the neuron's own", low=1e-3, only=("cell", THRESHOLDS))
    decay: float | None = option(
        None, "LIF, ALIF, SNU: decay of the membrane; none: the neuron's own", low=0, high=0.99999,
        only=("cell", ("lif", "alif", "snu", "ssnu")),
    )  # fmt: skip
    surrogate: str | None = option(
        None, "stand-in for the derivative of a spike; none: the neuron's own", choices=tuple(SURROGATES),
        only=("cell", ("ltc", "lif", "alif", "snu")),
    )  # fmt: skip
    readout: str = option("linear", "last layer", choices=READOUTS)
    readout_decay: float = option(
        0.9, "leaky and learned readouts: share of the past (learned: at first, over 0)", low=0, high=0.99999,
        only=("readout", ("leaky", "learned")),
    )  # fmt: skip
    reads: str = option("output", "what the readout sees of the last layer", choices=READS)
    embed: int = option(128, "text of over 512 characters or words: size of their embedding", low=1, only=("task", ("char", "word")))
    init: str = option("torch", "first weights: torch, xavier, or (a warm start) those of a .safetensors or published name")


@dataclass(frozen=True)
class Learning:
    rule: str = option("fptt", "learning rule", choices=RULES)
    form: str = option("feddyn", "form of FPTT", choices=FORMS, only=FPTT)
    alpha: float = option(0.1, "FPTT: pull toward the running average", low=1e-9, only=FPTT)
    parts: int = option(0, "updates a sequence; 0: the rule's habit (FPTT: one a step, the others: one a sequence)", low=0)
    supervise: str = option(
        "parts", "labels of whole sequences are asked at: the last step, the end of each part (weight rising to 1), every step, or the end "
        "of each part with Kag & Saligrama's auxiliary loss", choices=SUPERVISE,
    )  # fmt: skip
    aux_policy: str = option("average", "auxiliary loss: what its distributions follow (AuxiliaryLoss)", choices=POLICIES)
    aux_scaling: str = option("sound", "auxiliary loss: weight of its second term; reference: over the number of classes", choices=SCALINGS)
    aux_warm_up: int = option(0, "auxiliary loss: epochs in which its distributions stay uniform", low=0)
    mean: bool = option(True, "divide a part's gradient by its number of steps with a target")
    sltt_steps: int = option(
        0, "SLTT: learn at so many of a batch's steps with a target, drawn anew for each; 0: all", low=0, only=("rule", ("sltt",))
    )
    feedback: str = option("symmetric", "e-prop: feedback weights", choices=("symmetric", "random", "adaptive"), only=("rule", ("eprop",)))
    with_h: bool = option(True, "OSTL: carry the recurrent weights in the traces (exact for one layer)", only=("rule", ("ostl",)))
    clip: float = option(1.0, "global L2 norm the task's gradient is clipped to; 0: not", low=0)
    optimizer: str = option("adam", "optimizer", choices=("adamw", "adam", "adamax", "sgd"))
    lr: float = option(3e-3, "first learning rate", low=0)
    lr_final: float = option(1.0, "last learning rate, as a share of the first (cosine)", low=0, high=1)
    weight_decay: float = option(0.0, "decay of matrices and kernels", low=0)
    momentum: float = option(0.9, "SGD momentum, or Adam's beta1", low=0, high=0.9999)
    epochs: int = option(10, "passes over the training set", low=1)
    batch: int = option(128, "sequences a batch", low=1)
    amp: str = option("none", "bf16: matrix products of the cells in bf16; states, readout and weights stay fp32", choices=("none", "bf16"))


@dataclass(frozen=True)
class Evaluation:
    weights_of: str = option("w", "weights evaluated and kept as best", choices=("w", "average"))
    predict: str = option("last", "label of a sequence: from its last output, or from the mean of all", choices=("last", "mean"))
    recalibrate: int = option(
        16, "batches over which norm statistics are taken anew for an evaluated average (or form reference: W is one); 0: not", low=0
    )  # fmt: skip
    eval_every: int = option(1, "epochs between evaluations (the last epoch always is)", low=1)
    eval_batch: int = option(0, "sequences a batch in evaluation; 0: as in training (text: always its own streams, at most 20)", low=0)


@dataclass(frozen=True)
class Run:
    out: str = option("runs/sequence", "run folder")
    seed: int = option(0, "seed of weights, order and drawn data", low=0, high=MOST_SEED)
    dtype: str = option("float32", "of weights and states", choices=("float32", "float64"))
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...")
    save_seconds: float = option(120.0, "seconds between checkpoints inside an epoch", low=0)
    max_minutes: float = option(0.0, "stop (resumably) after so many minutes; 0: when done", low=0)


@dataclass(frozen=True)
class SequenceConfig(Settings):
    """A run on sequences. Sections only group the fields for reading."""

    dataset: Data = Data()
    network: Network = Network()
    learning: Learning = Learning()
    evaluation: Evaluation = Evaluation()
    run: Run = Run()

    def consistent(self, where: str) -> Self:
        if self.supervise == "auxiliary" and self.rule not in ("fptt", "bptt"):
            raise InputError(f"{where}: supervise auxiliary goes with fptt (or bptt in parts), not with {self.rule}")
        for name in AUXILIARY if self.supervise != "auxiliary" else ():
            if getattr(self, name) != getattr(Learning, name):
                raise InputError(f"{where}: {name} goes with supervise auxiliary, not with {self.supervise}")
        if self.amp == "bf16" and (self.rule not in ("fptt", "bptt", "sltt") or self.dtype != "float32"):
            raise InputError(f"{where}: amp bf16 goes with fptt, bptt and sltt in float32, not with {self.rule} in {self.dtype}")
        if self.slowest == 1:
            raise InputError(f"{where}: slowest is a time constant of 2 steps or more; 0: gate_bias")
        if self.slowest and self.init not in INITS:
            raise InputError(f"{where}: slowest chooses first weights, which {self.init} brings along; leave one of them out")
        if not self.hidden and not self.conv:
            raise InputError(f"{where}: a network without layers: give hidden or conv")
        if self.readout == "learned" and not self.readout_decay:
            raise InputError(f"{where}: readout learned starts from a readout_decay over 0; with none of the past, take readout linear")
        return self


def load_sequence_config(path: str | Path, base: SequenceConfig | None = None) -> SequenceConfig:
    """A config from a YAML file, see `load_settings`."""
    return load_settings(path, base or SequenceConfig(), PRESETS)


def sequence_presets() -> list[str]:
    return names_in(PRESETS)


def load_sequence_preset(name: str) -> SequenceConfig:
    """A preset by name, or a YAML file by path."""
    return load_sequence_config(name if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml")
