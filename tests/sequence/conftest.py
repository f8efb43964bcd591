import sys
from pathlib import Path

import pytest

from spyolo.sequence.tasks import adding

sys.path.insert(0, str(Path(__file__).parent))  # official_files: helpers of these tests


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, unadorned: None) -> None:
    """Short epochs, a small test, no pictures drawn."""
    monkeypatch.setattr(adding, "EPOCH", 3)
    monkeypatch.setattr(adding, "TESTS", 20)
