"""One VOC annotation file: read with defusedxml, written for other people's tools."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from spyolo.errors import InputError
from spyolo.files import one_line, read_limited, write_whole

MOST_BYTES = 16 << 20
MOST_NAME = 100  # letters of a class
MOST_PIXELS = 1 << 20  # of a side that a file may claim


@dataclass(frozen=True)
class Thing:
    """One <object> as the file has it."""

    name: str
    box: tuple[float, float, float, float] | None  # continuous x1 y1 x2 y2 (boxes.py); None: not four finite numbers
    difficult: bool = False


@dataclass(frozen=True)
class Annotation:
    """One annotation file. Width or height 0: the file does not say."""

    width: int
    height: int
    things: list[Thing] = field(default_factory=list)


def read_annotation(path: Path) -> Annotation:
    """Read one file; coordinates may be whole or fractional numbers.

    Raises:
        InputError: the file is missing, cut off, no VOC annotation, or declares entities.
    """
    try:
        root = fromstring(read_limited(path, MOST_BYTES), forbid_dtd=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; every id of an image set needs its annotation") from None
    except ParseError as error:
        raise InputError(f"{path} is no complete XML file ({error}); fetch or write it again") from None
    except InputError:
        raise
    except (DefusedXmlException, OSError, ValueError, LookupError, RecursionError) as error:  # LookupError: an unknown encoding
        raise InputError(f"{path} cannot be read: {one_line(error)}") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: field <{one_line(root.tag, 80)}> where <annotation> is expected")
    width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    return Annotation(_whole(width), _whole(height), [_thing(node) for node in root.findall("object")])


def _thing(node: Element) -> Thing:
    corners = [_number(node.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    difficult = _number(node.findtext("difficult")) == 1
    name = one_line(node.findtext("name") or "", MOST_NAME)
    if not all(map(math.isfinite, corners)):
        return Thing(name, None, difficult)
    xmin, ymin, xmax, ymax = corners
    return Thing(name, (xmin - 1, ymin - 1, xmax, ymax), difficult)


def _number(text: str | None) -> float:
    """The number in a field; NaN when there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _whole(value: float) -> int:
    return int(value) if math.isfinite(value) and 0 < value <= MOST_PIXELS else 0


def write_annotation(path: Path, annotation: Annotation, image_name: str, folder: str) -> None:
    """Write one file. Raises InputError where that cannot be done."""
    write_whole(path, annotation_xml(annotation, image_name, folder))


def annotation_xml(annotation: Annotation, image_name: str, folder: str) -> bytes:
    """One file's content with the fields that VOC's own have; whole numbers are written without a point."""
    root = Element("annotation")
    SubElement(root, "folder").text = folder
    SubElement(root, "filename").text = image_name
    size = SubElement(root, "size")
    for key, pixels in (("width", annotation.width), ("height", annotation.height), ("depth", 3)):
        SubElement(size, key).text = str(pixels)
    SubElement(root, "segmented").text = "0"
    for thing in annotation.things:
        if thing.box is None:
            raise ValueError(f"{image_name}: an object without a box cannot be written")
        node = SubElement(root, "object")
        for key, text in (("name", thing.name), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", str(int(thing.difficult)))):
            SubElement(node, key).text = text
        x1, y1, x2, y2 = thing.box
        bndbox = SubElement(node, "bndbox")
        for key, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            SubElement(bndbox, key).text = f"{value:.10g}"
    indent(root, "\t")
    return tostring(root) + b"\n"
