"""Published weights of sequence networks: weights/sequence, with a manifest and cards as the detectors have them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from spyolo import published
from spyolo.errors import InputError
from spyolo.files import write_whole
from spyolo.published import Entry, folder, place, sha256_of
from spyolo.sequence.config import INITS, SequenceConfig
from spyolo.tables import markdown
from spyolo.tensors import save_tensors

PIECE_COLUMNS = ("from", "rule", "parts", "batch", "lr", "amp", "seed", "judge", "epochs", "updates", "minutes", "device")


def shelf() -> Path:
    """The folder of published weights of sequence networks."""
    return folder() / "sequence"


def resolve(name: str | Path) -> Path:
    """A weights file from its path, or from its name in `shelf()`, as `published.resolve`."""
    return published.resolve(name, shelf())


def check_name(name: str) -> None:
    """Raises InputError where weights cannot be called so."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name) or name in INITS:
        raise InputError(f"a name is of letters, digits, _ and -, and not {' or '.join(INITS)}; got {name!r}")


def publish(
    name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], config: SequenceConfig, found: Mapping[str, Any],
    protocol: Mapping[str, Any], where: Path, rival: Entry | None,
) -> Path:  # fmt: skip
    """Put weights into a folder under a name, with an entry in its manifest and a card.

    Args:
        metadata: of the file, as `saved.description` gives them; its notes hold the pieces.
        found, protocol: what was measured, and what that depends on.
        rival: what is published under the name so far.

    Raises:
        InputError: a name that is none, or a folder that cannot be written.
    """
    check_name(name)
    with tempfile.TemporaryDirectory() as temporary:
        candidate = Path(temporary) / f"{name}.safetensors"
        save_tensors(candidate, tensors, metadata)
        about = {"task": config.task, "cell": config.cell, "hidden": list(config.hidden), "conv": config.conv}
        about |= {"readout": config.readout, "parameters": sum(t.numel() for t in tensors.values())}
        training = {"rule": config.rule, "weights_of": config.weights_of, "pieces": metadata["notes"]["pieces"]}
        figures = {k: v for k, v in found.items() if k != "test_rate"}
        entry = Entry(
            name, candidate.name, sha256_of(candidate), about, (), training, dict(protocol), figures, found.get("test_rate")
        )
        path = place(candidate, entry, where, rival)
    write_whole(where / f"{name}.md", card(entry))
    return path


def card(entry: Entry) -> str:
    """Markdown: what the file is, what it can do and how it came about. No figure is typed by hand."""
    c, m, p = entry.config, entry.metrics, entry.protocol
    layers = " ".join(x for x in (c["conv"], *map(str, c["hidden"])) if x)
    rate = "" if entry.firing_rate is None else f", firing rate {entry.firing_rate:.4f}"
    columns = (*PIECE_COLUMNS, next(iter(m)))  # the last: what the task is judged by
    figures = ", ".join(f"{name} {value:.4f}" for name, value in m.items())
    lines = [
        f"# {entry.name}", "",
        f"`{c['task']}`: {c['cell']} neurons, layers {layers}, readout {c['readout']}, {c['parameters']:,} parameters; "
        f"sha256 `{entry.sha256}`.", "",
        f"    tools/eval_sequence.py --weights {entry.name}{'' if c['task'] == 'adding' else ' --data DIR'}", "",
        f"{figures}{rate}: {p['tests']}, products in {'fp32' if p['amp'] == 'none' else p['amp']}, on {p['device']} ({p['processor']}, "
        f"{p['threads']} thread(s), PyTorch {p['torch']}).", "",
        "## Pieces of training", "",
        *markdown(columns, [[str(piece.get(name, "-")) for name in columns] for piece in entry.training["pieces"]]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
