"""The one reader of pictures takes every kind there is and refuses the rest with a message."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from spyolo.data import image_size, read_image
from spyolo.errors import InputError

ORANGE = (240, 120, 20)


def is_orange(image: np.ndarray) -> bool:
    return image.dtype == np.uint8 and image.shape[2] == 3 and bool((abs(image.astype(int) - ORANGE) <= 6).all())


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "P", "RGBA"])
def test_every_colour_model_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("RGB", "CMYK") else "a.png")
    picture = Image.new("RGB", (20, 10), ORANGE)
    (picture.quantize(4) if mode == "P" else picture.convert(mode)).save(path)
    assert is_orange(read_image(path)) and read_image(path).shape == (10, 20, 3)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()
    palette = Image.new("P", (8, 8), 0)
    palette.save(tmp_path / "b.gif", transparency=0)
    assert (read_image(tmp_path / "b.gif") == 255).all()
    for mode, clear, opaque in (("RGB", (255, 0, 0), (0, 0, 9)), ("L", 7, 9)):  # one colour stands for nothing
        picture = Image.new(mode, (8, 8), clear)
        picture.putpixel((0, 0), opaque)
        picture.save(tmp_path / "c.png", transparency=clear)
        found = read_image(tmp_path / "c.png")
        assert (found[1:] == 255).all() and found[0, 0].max() == 9


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(tmp_path / "a.png")
    assert abs(int(read_image(tmp_path / "a.png")[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("name", ["a.pgm", "a.png", "a.tiff"])
def test_sixteen_bits_of_a_dark_picture_are_scaled_like_those_of_a_bright_one(tmp_path, name):
    for value in (200, 300, 30000, 65535):
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / name)
        assert read_image(tmp_path / name).max() == int(value * (255 / 65535))


def test_one_bit_and_grey(tmp_path):
    Image.new("1", (8, 8), 1).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 99).save(tmp_path / "b.png")
    assert (read_image(tmp_path / "a.png") == 255).all() and (read_image(tmp_path / "b.png") == 99).all()


def test_an_animation_gives_its_first_frame(tmp_path):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (read_image(tmp_path / "a.gif") == 255).all()


def test_exif_orientation_is_followed_unless_told_otherwise(tmp_path):
    note = Image.Exif()
    note[274] = 6
    Image.new("RGB", (20, 10), ORANGE).save(tmp_path / "a.jpg", exif=note)
    assert read_image(tmp_path / "a.jpg").shape == (20, 10, 3)
    assert read_image(tmp_path / "a.jpg", exif=False).shape == (10, 20, 3)
    assert image_size(tmp_path / "a.jpg") == (20, 10)


def test_bytes_in_memory_are_read_too():
    coded = io.BytesIO()
    Image.new("RGB", (20, 10), ORANGE).save(coded, "PNG")
    assert is_orange(read_image(coded))
    with pytest.raises(InputError, match="the picture cannot be read"):
        read_image(io.BytesIO(b"not a picture"))


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (12_000, 12_000)).save(tmp_path / "a.png")  # 144 million pixels in 18 kB
    with pytest.raises(InputError, match=r"a.png.*100,000,000 pixels"):
        read_image(tmp_path / "a.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b.png: 20 x 10 is more than 100 pixels"):
        read_image(tmp_path / "b.png", max_pixels=100)


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "the file is empty"), (b"hello, I am text", "no known picture format"), (b"\xff\xd8\xff\xe0oops", "a.jpg")]
)
def test_what_is_no_picture_is_refused(tmp_path, content, why):
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=f"a.jpg cannot be read as a picture.*{why}" if why != "a.jpg" else why):
            read(tmp_path / "a.jpg")


def test_a_picture_that_is_cut_off_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a.jpg cannot be read as a picture"):
        read_image(tmp_path / "a.jpg")


def test_missing_folder_and_tiny_picture(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)
    Image.new("RGB", (1, 300)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="too small"):
        read_image(tmp_path / "a.png")
