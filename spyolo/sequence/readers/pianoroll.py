"""Piano rolls of Boulanger-Lewandowski et al. (JSB chorales, Nottingham, ...): MATLAB files with 88 keys a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spyolo.errors import InputError
from spyolo.files import one_line

KEYS = 88


def read_rolls(path: Path) -> dict[str, list[np.ndarray]]:
    """train, valid, test -> pieces, each uint8 [steps, 88].

    Raises:
        InputError: no such file, no scipy, or another content.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise InputError("piano rolls are MATLAB files, which need SciPy: pip install scipy") from None
    if not path.is_file():
        raise InputError(f"{path}: no such file; the sets are published as JSB_Chorales.mat, Nottingham.mat and others")
    try:
        content = loadmat(str(path))
        rolls = {split: [np.asarray(piece) for piece in content[f"{split}data"].ravel()] for split in ("train", "valid", "test")}
    except KeyError as error:
        raise InputError(f"{path}: holds no {error.args[0]}: not a file of piano rolls") from None
    except Exception as error:  # scipy raises many types for a damaged file
        raise InputError(f"{path}: not readable as a MATLAB file ({one_line(error) or type(error).__name__})") from None
    for split, pieces in rolls.items():
        if not pieces:
            raise InputError(f"{path}: {split} has no pieces")
        for i, piece in enumerate(pieces):
            if piece.ndim != 2 or piece.shape[1] != KEYS or not np.isin(piece, (0, 1)).all():
                raise InputError(f"{path}: piece {i} of {split} is not a roll of {KEYS} keys that are up or down, but {piece.shape}")
    return {split: [piece.astype(np.uint8) for piece in pieces] for split, pieces in rolls.items()}
