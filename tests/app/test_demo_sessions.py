"""What a visitor's page remembers goes with the visitor, and stays the visitor's own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from app_samples import NOISE

from app import sessions as module
from app.sessions import MOST, Sessions


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    (tmp_path / "uploads").mkdir()
    return Sessions(tmp_path / "made", tmp_path / "uploads")


def upload(sessions: Sessions, content: bytes = b"picture") -> Path:
    """A file as it arrives: in a folder named after its content."""
    path = sessions.uploaded / content.hex() / "a.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads count as settled at once."""
    monkeypatch.setattr(module, "FRESH", 0.0)


def user(name: str) -> Any:
    return SimpleNamespace(session_hash=name)


def test_things_are_remembered_a_visitor_each(sessions: Sessions) -> None:
    sessions.of(user("ann")).recall(dict)["x"] = 1
    assert sessions.of(user("ann")).recall(dict) == {"x": 1} and sessions.of(user("bob")).recall(dict) == {}


def test_pictures_lie_in_a_folder_that_others_cannot_guess_and_go_at_the_end(sessions: Sessions) -> None:
    path = Path(sessions.of(user("ann")).picture("seen", NOISE) or "")
    assert path.is_file() and "ann" not in str(path) and len(path.parent.name) > 20
    sessions.end(user("ann"))
    assert not path.parent.exists() and len(sessions) == 0


def test_a_request_still_running_at_the_end_writes_nothing_more(sessions: Sessions) -> None:
    session = sessions.of(user("ann"))
    sessions.end(user("ann"))
    assert session.picture("seen", NOISE) is None and not session.folder.exists()


def test_the_newest_pictures_of_a_name_stay(sessions: Sessions) -> None:
    session = sessions.of(user("ann"))
    paths = [Path(session.picture("seen", NOISE, keep=2) or "") for _ in range(4)]
    assert [path.exists() for path in paths] == [False, False, True, True]


def test_uploads_go_with_the_last_visitor_who_gave_them(sessions: Sessions, settled: None) -> None:
    shared, own = upload(sessions), upload(sessions, b"own")
    for who, path in (("ann", shared), ("ann", own), ("bob", shared)):
        sessions.keep_upload(sessions.of(user(who)), str(path))
    sessions.end(user("ann"))
    assert shared.exists() and not own.exists()
    sessions.end(user("bob"))
    assert not shared.exists()


def test_an_upload_just_arrived_waits_for_the_sweep(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been given by another visitor a moment ago, whose request comes next."""
    path = upload(sessions)
    sessions.keep_upload(sessions.of(user("ann")), str(path))
    sessions.end(user("ann"))
    assert path.exists()
    monkeypatch.setattr(module, "FRESH", 0.0)
    sessions.sweep()
    assert not path.exists()


def test_nothing_but_uploads_is_ever_deleted(sessions: Sessions, settled: None, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    for path in (tmp_path / "mine.png", sessions.uploaded / ".." / "mine.png"):
        sessions.keep_upload(sessions.of(user("ann")), str(path))
    sessions.end(user("ann"))
    assert (tmp_path / "mine.png").exists()


def test_those_away_too_long_and_too_many_are_forgotten(sessions: Sessions) -> None:
    first = sessions.of(user("ann"))
    first.used -= first.idle + 1
    for k in range(MOST + 5):
        sessions.of(user(str(k)))
    assert first.ended and len(sessions) == MOST


def test_empty_folders_of_uploads_are_tidied(sessions: Sessions, settled: None) -> None:
    path = upload(sessions)
    path.unlink()
    os.utime(path.parent, (0, time.time() - 60))
    sessions._tidy()
    assert not path.parent.exists()
