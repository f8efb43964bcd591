"""Sheets of pictures, and the report that holds everything in one file."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from eval_scenes import CLASSES, found, objects
from PIL import Image

from spyolo.evaluation.metrics import assess
from spyolo.evaluation.operating import OperatingPoint
from spyolo.evaluation.plots import detection_plots
from spyolo.evaluation.report import report_html, write_report
from spyolo.evaluation.sheets import chosen, picture_sheets

A, B = [5, 5, 45, 45], [60, 10, 110, 70]
TRUTH = {"good": objects(("cat", A)), "half": objects(("cat", A), ("dog", B)), "bad": objects(("dog", B)), "empty": objects()}
SAID = {"good": found(("cat", 0.9, A)), "half": found(("cat", 0.9, A)), "bad": found(("cat", 0.8, A))}


@pytest.fixture(scope="module")
def result():
    return assess(TRUTH, SAID, CLASSES)


def grey(place):
    return np.full((90, 120, 3), 128, np.uint8)


def test_pictures_are_ranked_by_f1_and_empty_ones_left_out(result):
    best, median, worst = picture_sheets(result, grey, count=2)
    assert [row["image_id"] for row in best.rows] == ["good", "half"]
    assert [row["image_id"] for row in worst.rows] == ["bad", "half"]
    assert median.rows[0] == {"image_id": "good", "f1": 1.0, "true": 1, "false": 0, "objects": 1}
    assert (best.name, median.name, worst.name) == ("pictures_best", "pictures_median", "pictures_worst")


def test_of_equal_scores_the_fuller_picture_goes_first():
    points = [OperatingPoint(1, 0, 1), OperatingPoint(3, 0, 3), OperatingPoint(0, 0, 0), OperatingPoint(0, 0, 2), OperatingPoint(0, 1, 5)]
    assert chosen(points, 1) == {"best": [1], "median": [0], "worst": [4]}


def test_a_sheet_shows_truth_and_detections(result):
    sheet = picture_sheets(result, grey, count=3)[0].drawing
    colours = len(np.unique(sheet.reshape(-1, 3), axis=0))
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3 and colours > 10
    blank = assess({"a": objects()}, {}, CLASSES)
    assert all(len(sheet.png) > 50 for sheet in picture_sheets(blank, grey))


class Page(HTMLParser):
    """Checks that every tag that opens closes, and collects where things come from."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.images, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "src":
                self.images.append(value)
            elif name == "href":
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_stands_alone(result, tmp_path):
    exhibits = [*detection_plots(result), *picture_sheets(result, grey)]
    write_report(tmp_path / "report.html", "Test", result.metrics, exhibits, data_folder="plots", texts=[("Energy", "1 < 2 mJ")])
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == [] and "script" not in page.tags and "link" not in page.tags
    assert len(page.images) == len(exhibits) == 8
    for source in page.images:
        assert source.startswith("data:image/png;base64,")
        assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size[0] > 100
    assert page.links[:3] == ["plots/ap_by_class.png", "plots/ap_by_class.json", "plots/ap_by_class.csv"]
    assert not re.search(r"https?://|@import|url\(", text)
    assert "1 &lt; 2 mJ" in text


def test_the_report_shows_figures_protocol_and_warnings(result):
    text = report_html("Test", result.metrics, [], figures=[("energy", "1.2 mJ")], warnings=["all scores are low"])
    assert "<span>VOC10+ AP50</span><b>50.00</b>" in text  # every cat and no dog is found
    assert "<b>1.2 mJ</b>" in text and "all scores are low" in text and "voc difficult" in text and "No objects of bird" in text


def test_names_are_text_not_markup():
    names = ("<script>x</script>", "c&t", '"dog"')
    result = assess({"a": objects(("bird", A))}, {}, names)
    text = report_html("<b>", result.metrics, detection_plots(result)[:1])
    assert "<script>" not in text and "&lt;script&gt;" in text and "<title>&lt;b&gt;</title>" in text
