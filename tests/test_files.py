"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spyolo.errors import InputError
from spyolo.files import is_there, make_folder, replace_file, user_cache_folder, write_whole


def test_text_and_bytes_are_written_and_folders_made(tmp_path):
    assert write_whole(tmp_path / "a" / "b.txt", "été\n").read_bytes() == "été\n".encode()
    assert write_whole(tmp_path / "a" / "b.txt", b"\x00").read_bytes() == b"\x00"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_folders_are_made_or_told_about(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir() and make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    reasons = {tmp_path / "file": "File exists", tmp_path / "file" / "x": "Not a directory", tmp_path / ("x" * 300): "too long"}
    for path, why in reasons.items():
        with pytest.raises(InputError, match=rf"^folder .* cannot be made \(.*{why}\); name another one$"):
            make_folder(path)


def test_what_the_system_does_not_let_one_see_is_told(tmp_path, monkeypatch):
    assert is_there(tmp_path, Path.is_dir) and not is_there(tmp_path) and not is_there(tmp_path / "none", Path.exists)
    with pytest.raises(InputError, match=r"xxx.* cannot be looked for \(File name too long\)$"):
        is_there(tmp_path / ("x" * 300))
    monkeypatch.setattr(os, "stat", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(InputError, match=r"file' cannot be looked for \(Permission denied\)$"):
        is_there(tmp_path / "file")


def test_caches_are_where_a_user_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / "spyolo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / ".cache" / "spyolo"


def test_others_may_read_what_is_written(tmp_path):
    assert write_whole(tmp_path / "a", "x").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_what_was_there(tmp_path, error):
    path = write_whole(tmp_path / "a.txt", "before")

    def half(temporary: Path) -> None:
        temporary.write_text("aft")
        raise error

    with pytest.raises(InputError if isinstance(error, OSError) else type(error)) as caught:
        replace_file(path, half)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    if isinstance(error, OSError):
        assert str(caught.value) == f"{path} cannot be written (No space left on device); what was there before is untouched"


def test_a_replacement_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = write_whole(tmp_path / "a.txt", "before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(InputError, match="Input/output error"):
        write_whole(path, "after")
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(InputError, match=f"{path} cannot be written"):
            write_whole(path, "x")


def test_a_kill_in_the_middle_leaves_what_was_there(tmp_path):
    path = write_whole(tmp_path / "a.txt", "before")
    program = (
        "import os, signal, sys; from pathlib import Path; from spyolo.files import replace_file\n"
        "def half(temporary):\n    temporary.write_text('aft'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "replace_file(Path(sys.argv[1]), half)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -9
    assert path.read_text() == "before"
