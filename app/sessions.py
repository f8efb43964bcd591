"""What one visitor's page remembers, and the files made for it. All of it goes when the page is closed, and nobody else is given it.

Gradio's own state outlives a closed page by an hour and its cache of pictures by longer; and its cache is by content, not by visitor.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from PIL import Image

IDLE = 3600.0  # seconds: of scripts that never say that they leave
LINGER = 60.0  # seconds: of a page that comes back after it was closed
MOST = 64  # visitors remembered; the one away longest goes first
FRESH = 30.0  # seconds: an upload so young may be another visitor's, on its way to being noted
SWEEP_EVERY = 15.0  # seconds
UPLOADS = 24  # files kept of one visitor
T = TypeVar("T")


class Session:
    """One visitor.

    Args:
        folder: for pictures made for this visitor; its name is the secret that keeps others out.
        uploaded: the folder in which uploads arrive; nothing outside it is ever deleted.
    """

    def __init__(self, folder: Path, uploaded: Path, idle: float = IDLE) -> None:
        self.folder, self.uploaded, self.idle = folder, uploaded, idle
        self.used, self.ended = time.monotonic(), False
        self.uploads: OrderedDict[Path, None] = OrderedDict()
        self._things: dict[type, Any] = {}
        self._made: dict[str, deque[Path]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def recall(self, kind: type[T]) -> T:
        """This visitor's one thing of a kind, made when first asked for."""
        with self._lock:
            if kind not in self._things:
                self._things[kind] = kind()
            return self._things[kind]

    def forget(self, kind: type) -> None:
        with self._lock:
            self._things.pop(kind, None)

    def place(self, name: str, ending: str, keep: int = 2) -> str | None:
        """Where a new file of this name may be written; of the same name only the `keep` newest stay. None after the end."""
        with self._lock:
            if self.ended:
                return None
            self.folder.mkdir(parents=True, exist_ok=True)
            self._count += 1
            path = self.folder / f"{name}-{self._count}{ending}"
            made = self._made.setdefault(name, deque())
            made.append(path)
            old = [made.popleft() for _ in range(len(made) - keep)]
        for gone in old:
            gone.unlink(missing_ok=True)
        return str(path)

    def picture(self, name: str, image: np.ndarray | None, keep: int = 2) -> str | None:
        """A picture, RGB or RGBA uint8 [H, W, C], as a file that this visitor's page may fetch."""
        path = None if image is None else self.place(name, ".png" if image.shape[2] == 4 else ".jpg", keep)
        if path is None or image is None:
            return None
        try:
            Image.fromarray(np.ascontiguousarray(image)).save(path, **({} if image.shape[2] == 4 else {"quality": 90}))
        except FileNotFoundError:  # the page was closed meanwhile
            return None
        return path

    def end(self) -> None:
        """Forget everything and delete the pictures made."""
        with self._lock:
            self.ended = True
            self._things.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All visitors.

    Args:
        folder: for pictures made, a folder a visitor.
        uploaded: where uploads arrive.
    """

    def __init__(self, folder: Path, uploaded: Path) -> None:
        self.folder, self.uploaded = folder, uploaded
        self._all: OrderedDict[str, Session] = OrderedDict()
        self._left: OrderedDict[str, None] = OrderedDict()
        self._doomed: set[Path] = set()  # uploads to delete once they are no longer fresh
        self._lock = threading.RLock()
        self._closed = threading.Event()

    def __len__(self) -> int:
        return len(self._all)

    def now(self) -> list[Session]:
        """Those remembered now."""
        with self._lock:
            return list(self._all.values())

    def of(self, request: gr.Request) -> Session:
        """The visitor who asks."""
        key = getattr(request, "session_hash", None) or secrets.token_urlsafe()
        with self._lock:
            if key not in self._all:
                idle = LINGER if key in self._left else IDLE
                self._all[key] = Session(self.folder / secrets.token_urlsafe(16), self.uploaded, idle)
            self._all.move_to_end(key)
            session = self._all[key]
            session.used = time.monotonic()
        self.sweep()
        return session

    def keep_upload(self, session: Session, upload: Any) -> None:
        """Note whose an uploaded file is. The same picture given by two visitors is one file: the last one to leave takes it along."""
        if not isinstance(upload, str) or ".." in Path(upload).parts or self.uploaded not in Path(upload).parents:
            return
        with self._lock:
            session.uploads[Path(upload)] = None
            session.uploads.move_to_end(Path(upload))
            old = [session.uploads.popitem(last=False)[0] for _ in range(len(session.uploads) - UPLOADS)]
        self._delete(old)

    def end(self, request: gr.Request) -> None:
        """The page was closed."""
        key = getattr(request, "session_hash", None)
        with self._lock:
            if key:
                self._left[key] = None
                while len(self._left) > 1000:
                    self._left.popitem(last=False)
            session = self._all.pop(key, None) if key else None
        if session is not None:
            self._end(session)

    def sweep(self) -> None:
        """End those who were away too long, and the longest away if there are too many; delete what waits for it."""
        now, gone = time.monotonic(), []
        with self._lock:
            for key, session in list(self._all.items()):
                if now - session.used > session.idle or len(self._all) > MOST:
                    gone.append(self._all.pop(key))
            doomed, self._doomed = self._doomed, set()
        for session in gone:
            self._end(session)
        self._delete(doomed)

    def watch(self) -> Sessions:
        """Sweep now and then, also while nobody comes, until `close`."""

        def keep_sweeping() -> None:
            while not self._closed.wait(SWEEP_EVERY):
                self.sweep()
                self._tidy()

        threading.Thread(target=keep_sweeping, name="sweeping sessions", daemon=True).start()
        return self

    def close(self) -> None:
        """End everybody's."""
        self._closed.set()
        with self._lock:
            gone, self._all = list(self._all.values()), OrderedDict()
        for session in gone:
            self._end(session)

    def _end(self, session: Session) -> None:
        session.end()
        self._delete(session.uploads)

    def _delete(self, uploads: Iterable[Path]) -> None:
        with self._lock:
            kept = {path for other in self._all.values() for path in other.uploads}
            for path in set(uploads) - kept:
                try:
                    if time.time() - path.stat().st_ctime < FRESH and not self._closed.is_set():
                        self._doomed.add(path)
                    else:
                        path.unlink()
                except FileNotFoundError:
                    continue

    def _tidy(self) -> None:
        """Remove the empty folders that deleted uploads leave; not at once, since the same picture may be arriving again."""
        for folder in self.uploaded.glob("*/"):
            with contextlib.suppress(OSError):  # not empty, or gone
                if time.time() - folder.stat().st_mtime > FRESH:
                    folder.rmdir()
