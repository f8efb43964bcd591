"""A seeded mutator of files: the same seed spoils the same file in the same way, so that a failure can be repeated from its number."""

from __future__ import annotations

import random

NUMBERS = (b"0", b"-1", b"1e999", b"-1e999", b"nan", b"inf", b"1" * 400, b"0x7fffffff", b"4294967296", b"1e-320", b"9" * 5000, b"\xd9\xa3")
WORDS = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"../../../etc/passwd", b"..", b"/", b"\\", b"null", b"true", b"[]", b"{}", b'"', b"'",
    b"<", b">", b"&lol;", b"<![CDATA[", b"<!--", b"&#0;", b"&#x110000;", b"\n", b"\r", b"\t", b" ", b":", b"- ",
    b"!!python/object:os.system", b"!!int x", b"*a", b"&a", b"\xc3\x28", b"\xf0\x9f\x90\x88", b"\xe2\x80\xae", b"{" * 3000,
    b"[" * 3000, b"- " * 500, b"(" * 200,
)  # fmt: skip
SIZES = (0, 1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def mutate(seeds: list[bytes], rng: random.Random) -> bytes:
    """One of the seeds with one to eight things done to it."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        rng.choice(OPERATIONS)(data, seeds, rng)
    return bytes(data[: 1 << 23])


def mutate_header(seeds: list[bytes], rng: random.Random) -> bytes:
    """A safetensors file whose header is spoilt and whose length of it is right."""
    whole = rng.choice(seeds)
    end = 8 + int.from_bytes(whole[:8], "little")
    header = mutate([whole[8:end]], rng)
    return len(header).to_bytes(8, "little") + header + whole[end:]


def _place(data: bytearray, rng: random.Random) -> int:
    """Heads of files matter most: half of the places are among the first 64 bytes."""
    most = len(data) if rng.random() < 0.5 else min(len(data), 64)
    return rng.randrange(most + 1)


def flip(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 16))):
        if data:
            data[min(_place(data, rng), len(data) - 1)] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    at, count = _place(data, rng), rng.choice((1, 2, 4, 8, 32))
    data[at : at + count] = rng.randbytes(count)


def cut(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    del data[_place(data, rng) :]


def remove(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 8, 64, 1024))]


def repeat(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    part = data[at : at + rng.choice((1, 8, 64, 512))]
    data[at:at] = part * rng.choice((1, 2, 16, 64))


def insert(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = rng.choice(WORDS + NUMBERS)


def swap_number(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    """Another number in the place of one that is written out."""
    starts = [i for i, c in enumerate(data[:20000]) if 48 <= c <= 57 and (i == 0 or not 48 <= data[i - 1] <= 57)]
    if starts:
        at = end = rng.choice(starts)
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        data[at:end] = rng.choice(NUMBERS)


def swap_word(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    """Another word in the place of one between blanks, quotes or brackets."""
    edges = [i for i, c in enumerate(data[:20000]) if c in b" \n\"'<>[]{},:="]
    if len(edges) > 1:
        k = rng.randrange(len(edges) - 1)
        data[edges[k] + 1 : edges[k + 1]] = rng.choice(WORDS + NUMBERS)


def set_size(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    """A number that readers of binary files may take for a length."""
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    at = _place(data, rng)
    data[at : at + width] = (rng.choice(SIZES) % (1 << 8 * width)).to_bytes(width, order)


def splice(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    other = rng.choice(seeds)
    data[_place(data, rng) :] = other[rng.randrange(len(other) + 1) :]


OPERATIONS = (flip, overwrite, cut, remove, repeat, insert, swap_number, swap_word, set_size, splice)
