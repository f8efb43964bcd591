"""Files from anybody: whatever is in them, a reader returns or says in one line what is wrong. No other exception, no hang, no swelling.

Each reader gets files of its kind, spoilt by a seeded mutator (fuzzing.py): some in every run of the tests, 10,000 with `pytest -m slow
tests/test_fuzz.py`. What hypothesis draws comes below. A failure names reader and number: `spoilt("annotation", 17)` is that file again.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path

import fuzz_containers
import fuzz_kinds
import fuzz_recordings
import pytest
import yaml
from fuzz_kinds import devkit, read_devkit, read_results, weights
from fuzzing import mutate, mutate_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spyolo.checkpoint import load_detector
from spyolo.config import Config, load_config
from spyolo.data.classes import parse_classes
from spyolo.data.splits import parse_splits
from spyolo.errors import InputError

KINDS = {**fuzz_kinds.KINDS, **fuzz_recordings.KINDS, **fuzz_containers.KINDS}
ALL = sum(kind.share for kind in KINDS.values())
SLOW = 10_000  # files of all kinds together
SECONDS, MEGABYTES = 5, 1500  # for one file; growth over all


@cache
def seeds_of(kind: str, folder: Path) -> list[bytes]:
    folder.mkdir(exist_ok=True)
    return KINDS[kind].seeds(folder)


def spoilt(kind: str, number: int, folder: Path) -> bytes:
    spoil = mutate_header if kind == "weights" and number % 2 else mutate  # else nearly all would fail at the length of the header
    return spoil(seeds_of(kind, folder / "seeds"), random.Random(f"{kind} {number}"))


@contextmanager
def bounded(what: str, seconds: int = SECONDS) -> Iterator[None]:
    """The inside must end in time, by returning or with an InputError of one line of bounded length."""

    def late(*_: object) -> None:
        raise TimeoutError(f"{what}: still reading after {60 * seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60 * seconds)  # of the wall's clock, which other processes slow down
    began = time.process_time()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except InputError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 4000, f"{what}: {message[:300]!r}"
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - began < seconds, f"{what} took {time.process_time() - began:.1f} s"


def peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_spoilt(kind: str, numbers: range, folder: Path) -> None:
    path = folder / KINDS[kind].place
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "annotation":
        devkit(folder)
    before = peak()
    for number in numbers:
        path.write_bytes(spoilt(kind, number, folder))
        with bounded(f"{kind} {number}"):
            KINDS[kind].read(path)
    assert peak() - before < MEGABYTES


@pytest.mark.parametrize("kind", KINDS)
def test_sound_files_are_read(kind, tmp_path):
    """Else nothing below would mean anything."""
    path = tmp_path / KINDS[kind].place
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "annotation":
        devkit(tmp_path)
    path.write_bytes(seeds_of(kind, tmp_path / "seeds")[0])
    with warnings.catch_warnings(action="ignore"):
        KINDS[kind].read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_are_read_or_refused_in_one_line(kind, tmp_path):
    read_spoilt(kind, range(4 * KINDS[kind].share), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_spoilt_files(kind, tmp_path):
    read_spoilt(kind, range(-(-SLOW * KINDS[kind].share // ALL)), tmp_path)


# --- what hypothesis draws ---

DRAWS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["a", "cat", 1, 2, 0.5])
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5), max_leaves=12
)
NUMBERS = st.floats() | st.integers() | st.text(max_size=5)
RESULT = st.fixed_dictionaries(
    {"image_id": SCALARS, "category_id": SCALARS, "bbox": st.lists(SCALARS, max_size=5) | TREES, "score": SCALARS},
    optional={"id": SCALARS, "category": SCALARS},
)


@DRAWS
@given(tree=TREES | st.lists(RESULT, max_size=4))
def test_results_of_any_shape(tree, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(tree))
    with bounded("results"):
        read_results(tmp_path / "r.json")


@DRAWS
@given(values=st.dictionaries(st.sampled_from(sorted(Config.fields())) | st.text(max_size=8), TREES, max_size=4))
def test_configs_of_any_shape(values, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    with bounded("config"):
        config = load_config(tmp_path / "c.yaml")
        assert load_config(write(tmp_path / "d.yaml", config.to_yaml())) == config  # what was taken comes back as it was


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@DRAWS
@given(corners=st.lists(NUMBERS, min_size=4, max_size=4), size=st.tuples(st.integers(), st.floats()))
def test_boxes_of_any_numbers(corners, size, tmp_path):
    base = devkit(tmp_path)
    keys = ("xmin", "ymin", "xmax", "ymax")
    escaped = [str(c).replace("&", "").replace("<", "").encode("ascii", "ignore").decode() for c in corners]
    box = "".join(f"<{k}>{c}</{k}>" for k, c in zip(keys, escaped))
    text = (
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
    )
    with bounded("boxes"):
        read_devkit(write(base / "Annotations" / "a.xml", text))


@DRAWS
@given(text=st.text(max_size=40))
def test_words_of_the_command_line(text, tmp_path):
    for read in (parse_splits, parse_classes):
        with bounded(read.__name__):
            read(text)


@DRAWS
@given(content=st.binary(max_size=300))
def test_any_bytes_at_all(content, tmp_path):
    for kind in KINDS.values():
        path = tmp_path / kind.place
        path.parent.mkdir(parents=True, exist_ok=True)
        devkit(tmp_path)
        path.write_bytes(content)
        with bounded(kind.place):
            kind.read(path)


# --- what was found, and stays found ---


def test_a_few_lines_of_yaml_that_stand_for_gigabytes(tmp_path):
    """Aliases of aliases: the tree is small, its text is not, and an error message is text."""
    names = [chr(97 + k) for k in range(12)]
    bomb = "a: &a [x, x]\n" + "".join(f"{k}: &{k} [{', '.join([f'*{p}'] * 10)}]\n" for p, k in pairwise(names))
    for field in ("lr", "classes", "readout", "strict", "anchors", "learning", "detector"):
        with pytest.raises(InputError), bounded_raising("bomb"):
            load_config(write(tmp_path / "c.yaml", bomb.replace("a: &a", "unknown_a: &a") + f"{field}: *l\n"))
        with pytest.raises(InputError, match=field), bounded_raising("bomb"):
            load_config(write(tmp_path / "d.yaml", f"{field}: {nested(12)}\n"))


def nested(depth: int) -> str:
    """Anchors inside one value."""
    parts = ["&a0 [x, x]", *(f"&a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, depth))]
    return "[" + ", ".join(parts) + "]"


@contextmanager
def bounded_raising(what: str) -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS, what


def test_a_description_that_claims_more_than_the_file_holds(tmp_path):
    """Nothing of the size that a few letters ask for is made."""
    from spyolo.checkpoint import load_tensors, save_tensors

    path = tmp_path / "w.safetensors"
    path.write_bytes(weights(tmp_path)[0])
    tensors, described = load_tensors(path)
    spec = json.loads(described["spec"])
    before = peak()
    for change in ({"width": 60.0}, {"depth": 60}, {"width": 1e9}, {"depth": 10**9}, {"in_channels": 1000}, {"width": float("inf")}):
        save_tensors(path, tensors, described | {"spec": json.dumps(spec | change)})
        with bounded("claim"), pytest.raises(InputError, match=r"expected|must be at most|is missing"):
            load_detector(path)
    for field, value in (("size", 2**40), ("timesteps", 10**9)):
        save_tensors(path, tensors, described | {field: value})
        with pytest.raises(InputError, match=f"field '{field}' of its metadata is malformed"):
            load_detector(path)
    assert peak() - before < 500


def test_a_pipe_or_a_device_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with bounded("device"), pytest.raises(InputError, match="no ordinary file"):
            load_config(path)


@pytest.mark.parametrize("text", ["when: 2020-99-99", "lr: !!int x", "[" * 5000, "lr: 0x" + "f" * 6000, "? [a]\n: b", "lr: !!binary x"])
def test_yaml_that_its_reader_chokes_on(text, tmp_path):
    with pytest.raises(InputError):
        load_config(write(tmp_path / "c.yaml", text))


@pytest.mark.parametrize("attack", ["entities", "external", "parameter"])
def test_entities_are_refused_before_they_grow(attack, tmp_path):
    secret = write(tmp_path / "secret", "the secret")
    lol = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 12))
    texts = {
        "entities": f'<!DOCTYPE a [<!ENTITY l0 "lol">{lol}]><annotation><filename>&l11;</filename></annotation>',
        "external": f'<!DOCTYPE a [<!ENTITY s SYSTEM "file://{secret}">]><annotation><object><name>&s;</name></object></annotation>',
        "parameter": f'<!DOCTYPE a [<!ENTITY % p SYSTEM "file://{secret}"> %p;]><annotation/>',
    }
    base = devkit(tmp_path)
    with bounded(attack), pytest.raises(InputError, match=r"no picture of 2007:train is usable.*(Entities|DTD)") as caught:
        read_devkit(write(base / "Annotations" / "a.xml", texts[attack]))
    assert "the secret" not in str(caught.value)
