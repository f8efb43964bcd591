"""Learning rules as objects around an optimizer, and averages of the weights.

`build_rule` makes the rules of sequences by name (`RULES`); `FPTT` and `BPTT` are the updates inside them, and the detector's.
"""

from spyolo.learning.auxiliary import AuxiliaryLoss
from spyolo.learning.averaging import EMA, swapped
from spyolo.learning.bptt import BPTT
from spyolo.learning.build import RULES, build_rule
from spyolo.learning.fptt import FORMS, FPTT, Closure
from spyolo.learning.parts import split_steps
from spyolo.learning.sequence_rule import Seen, SequenceRule
from spyolo.learning.sequence_rule import Update as Rule  # what a training loop asks of an update

__all__ = [
    "BPTT", "EMA", "FORMS", "FPTT", "RULES", "AuxiliaryLoss", "Closure", "Rule", "Seen", "SequenceRule", "build_rule", "split_steps",
    "swapped",
]  # fmt: skip
