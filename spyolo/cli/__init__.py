"""The command lines: `spyolo COMMAND ...`, also reached through the shims in tools/.

Each command module has `main(argv) -> int`. Bad input is answered with one clear line and exit status 2, Ctrl-C with 130.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from spyolo.errors import InputError
from spyolo.files import one_line

COMMANDS = {
    "train": "train a detector",
    "eval": "measure a detector, or a file of predictions",
    "publish": "put weights among the published ones: measured, with checksum, manifest and card",
    "predict": "draw boxes on pictures, videos, camera and network streams",
    "demo": "serve the demo, a page for the browser",
    "make_sample": "draw the VOC-format sample set",
    "make_shards": "write a data set as WebDataset shards",
    "convert": "convert between VOC folders, COCO JSON and YOLO text",
    "convert_weights": "turn a pickled .pth of weights into safetensors",
    "anchors": "fit anchors to a data set",
    "energy_table": "put the energy of several evaluations side by side",
    "train_sequence": "train neurons on a sequence task by any learning rule",
    "eval_sequence": "measure the weights of a sequence network, and publish them",
    "export": "write a detector as ONNX (for onnxruntime without torch), a LIF sequence network as NIR",
    "compare_rules": "compare learning rules on a sequence task",
    "check_data": "look a data set over before training on it",
}


# What a system says of files and disks that are as their owner has them. Anything else (a closed handle, a socket, a file that is there
# already) our code should have foreseen, and keeps its traceback.
_OF_FILES = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.EIO,
}  # fmt: skip
_OF_DISKS = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # met while writing, when no name is told


def guarded(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run a command; turn bad input, files that the system refuses, and interruption into a message and an exit status instead of a
    traceback."""
    try:
        return main(argv)
    except InputError as error:
        return _refused(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        named = error.errno in _OF_FILES | _OF_DISKS and isinstance(error.filename, str | os.PathLike)
        if not named and error.errno not in _OF_DISKS:
            raise
        return _refused(f"{one_line(error.filename)}: {error.strerror}" if named else error.strerror)


def _refused(why: object) -> int:
    rank = os.environ.get("RANK", "0")  # of several processes, each may meet an error of its own
    print(f"error: {why}" if rank == "0" else f"error (process {rank}): {why}", file=sys.stderr)
    return 2


def run(command: str, argv: Sequence[str] | None = None) -> int:
    """Run the named command, with `argv` (default: the process's arguments)."""
    return guarded(importlib.import_module(f"spyolo.cli.{command}").main, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """`spyolo COMMAND ...`"""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0].replace("-", "_") if argv else ""
    return run(name, argv[1:]) if name in COMMANDS else guarded(usage, argv[:1])


def usage(argv: Sequence[str] | None) -> int:
    """What there is to run: asked for, or because what was written is none of it."""
    text = "usage: spyolo COMMAND ...\n\n" + "".join(f"  {name:<16} {about}\n" for name, about in COMMANDS.items())
    asked = list(argv or ()) in (["--help"], ["-h"])
    print(text + "\n`spyolo COMMAND --help` tells more.", file=sys.stdout if asked else sys.stderr, flush=True)
    return 0 if asked else 2
