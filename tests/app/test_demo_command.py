"""The command line of the demo."""

from __future__ import annotations

import pytest

from spyolo.cli.demo import main
from spyolo.errors import InputError


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--tls-key", "k.pem"], "go together"), (["--user", "ann"], "name:password"), (["--port", "99999"], "65535"),
     (["--weights", "missing.safetensors"], "no such weights file")],
)  # fmt: skip
def test_bad_options_are_one_line(options: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        main(options)
