"""What a run asks of its sequences: how many updates each, at which steps a label, by which loss; and whether its settings go together."""

from __future__ import annotations

from spyolo.errors import InputError
from spyolo.learning import AuxiliaryLoss
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.tasks.base import Task


def parts_of(config: SequenceConfig, timesteps: int) -> int:
    """Updates of a sequence of that length; `check_questions` sees to it that it has as many steps."""
    return config.parts or (timesteps if config.rule == "fptt" else 1)


def check_questions(config: SequenceConfig, task: Task) -> None:
    """Whether a run can ask what its settings say.

    Raises:
        InputError: a label would be asked for at a step that not every sequence has, a batch could be too short for its parts, or settings,
            each good by itself, do together something else than they say.
    """
    c, per_step = config, task.objective.per_step
    if not (task.timesteps or per_step or c.supervise == "every"):
        raise InputError(
            f"supervise {c.supervise} asks at steps that all sequences have, those of {c.task} differ in length: use --supervise every"
        )
    least = task.least_steps(c.batch) if c.parts > 1 else 1
    if c.parts > least:
        raise InputError(
            f"parts ({c.parts}) cannot exceed the steps of a batch, and one of {c.task} may have no more than {least}: use --parts {least} "
            "or fewer"
        )
    if c.weights_of == "average" and c.rule != "fptt":
        raise InputError(f"weights_of average goes with fptt, {c.rule} keeps no average: use --weights-of w")
    if c.supervise == "auxiliary" and (c.parts == 1 or (not c.parts and c.rule == "bptt")):
        raise InputError("supervise auxiliary asks nothing of its own in one part: give --parts of 2 or more, or --supervise last")
    if c.supervise == "last" and c.parts != 1 and (c.parts or c.rule == "fptt") and not per_step:
        raise InputError(
            f"supervise last leaves all parts but the last without a target, so {c.rule} makes one update a sequence: use --parts 1, or "
            "--supervise parts"
        )


def auxiliary_loss(config: SequenceConfig, task: Task, parts: int) -> AuxiliaryLoss | None:
    """Kag & Saligrama's loss for labels that come at the end, where it is asked for. `parts`: of all sequences; 0: they differ.

    Raises:
        InputError: no classes, or sequences of different lengths.
    """
    if config.supervise != "auxiliary":
        return None
    if task.objective.metric != "accuracy" or not parts:
        raise InputError(f"supervise auxiliary needs classes and sequences of one length, which {config.task} does not have")
    return AuxiliaryLoss(
        task.outputs, parts, warm_up=config.aux_warm_up, policy=config.aux_policy, scaling=config.aux_scaling
    )  # fmt: skip
