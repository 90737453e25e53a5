"""The report as a parser of HTML reads it."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mobilenet_runtime import ImageError, Preprocessing
from mobilenet_runtime.evaluation import Evaluation, Speed, confident_mistakes, metrics, overlay, write_report
from mobilenet_runtime.evaluation.history import read_history
from mobilenet_runtime.examples import Examples

pytestmark = pytest.mark.across

EVIL = '<script>alert("1")</script> & $co'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What is on a page: its elements with their attributes, its text, its tables."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text, self.tables, self.cell = [], [], "", [], None
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def evaluation(classes=5, count=60, names=None, **changes):
    random = np.random.default_rng(2)
    labels = random.integers(0, classes, count)
    values = np.exp(random.normal(size=(count, classes)) + 2 * np.eye(classes)[labels])
    values = (values / values.sum(1, keepdims=True)).astype("float32")
    names = names or (EVIL, *(f"class {i}" for i in range(1, classes)))
    images = list(random.integers(0, 256, (count, 12, 10, 3)).astype("uint8"))
    examples = Examples(images, labels, names, [f"{EVIL}[{i}]" for i in range(count)])
    found = Evaluation(
        model=EVIL,
        runtime="NumPy",
        class_names=names,
        indices=np.arange(count),
        probabilities=values,
        labels=labels,
        metrics=metrics(values, labels),
        damaged=(ImageError(f"{EVIL} can't be read."),),
        speed=Speed(123.4, 5.67, 4, 89.0),
        costs={"parameters": 1234567, "macs": 7654321},
        examples=examples,
        transform=Preprocessing((8, 8), 1.0, "bilinear", None, None),
    )
    return dataclasses.replace(found, **changes)


def page(tmp_path, found, **options):
    return Page(write_report(tmp_path / "new" / "report.html", found, **options).read_text("utf-8"))


HISTORY = [{"epoch": i, "loss": 1 / (i + 1), "val_loss": 2 / (i + 1), "learning_rate": 0.1} for i in range(4)]


def test_it_needs_nothing_beside_it(tmp_path):
    found = evaluation()
    rows = confident_mistakes(found.probabilities, found.labels, 3)
    overlays = {int(row): overlay(Image.new("RGB", (8, 8)), np.eye(2)) for row in rows}
    shown = page(tmp_path, found, history=HISTORY, overlays=overlays, facts={"Command": EVIL})
    for tag, attributes in shown.elements:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
    policy = next(each["content"] for each in shown.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'")
    text = (tmp_path / "new" / "report.html").read_text("utf-8")
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_what_users_wrote_is_text(tmp_path):
    shown = page(tmp_path, evaluation(), facts={EVIL: EVIL}, history=[{"loss": 1.0, "$x$": 1, "val_$x$": 2}])
    assert len(shown.all("script")) == 1  # the report's own
    assert shown.text.count(EVIL) >= 8


def test_figures_and_tables(tmp_path):
    found = evaluation()
    shown = page(tmp_path, found)
    assert f"{found.metrics.top1:.2%}" in shown.text and f"{found.metrics.log_loss:.4f}" in shown.text
    assert f"{found.metrics.calibration.ece:.4f}" in shown.text
    for said in ("123.4", "a batch of 4", "5.67 ms", "89 MB", "1,234,567", "7,654,321", "1 could not be read"):
        assert said in shown.text
    matrix = next(table for table in shown.tables if table[0] == ["", *found.class_names])
    assert [row[0] for row in matrix[1:]] == list(found.class_names)
    counts = [[int(cell or 0) for cell in row[1:]] for row in matrix[1:]]
    np.testing.assert_array_equal(counts, found.metrics.confusion)
    classes = next(table for table in shown.tables if table[0] == ["class", "images", "precision", "recall", "F1"])
    for row, *expected in zip(classes[1:], found.class_names, found.metrics.support, found.metrics.recall, strict=True):
        assert [row[0], row[1], row[3]] == [expected[0], str(expected[1]), f"{expected[2]:.1%}"]
    assert "Training" not in shown.text


@pytest.mark.parametrize("classes", [2, 24, 25, 200])
def test_any_number_of_classes(classes, tmp_path):
    found = evaluation(classes, count=max(100, 5 * classes))
    shown = page(tmp_path, found, mistakes=0)
    matrices = [each for each in shown.all("img") if each.get("class") == "matrix"]
    assert len(matrices) == (classes > 24)
    if matrices:
        image = Image.open(io.BytesIO(base64.b64decode(matrices[0]["src"].partition(",")[2])))
        scale = image.width // classes
        cells = np.asarray(image)[scale // 2 :: scale, scale // 2 :: scale]
        np.testing.assert_array_equal(cells[..., 3] > 0, found.metrics.confusion > 0)
        assert f"{classes} classes" in matrices[0]["alt"]
    most = np.where(np.eye(classes), 0, found.metrics.confusion).max()
    pairs = next(table for table in shown.tables if table[0][0] == "true class")
    assert int(pairs[1][2]) == most and len(pairs) <= 13


def test_a_class_without_images(tmp_path):
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]], "float32")
    found = evaluation(3, 2, labels=np.array([0, 0]), probabilities=probabilities)
    found = dataclasses.replace(found, metrics=metrics(probabilities, found.labels), speed=None, costs={}, damaged=())
    shown = page(tmp_path, found)
    classes = next(table for table in shown.tables if table[0][0] == "class")
    assert classes[3][1:] == ["0", "–", "–", "–"]
    assert "nan" not in shown.text.lower()
    for absent in ("Speed", "Skipped", "mistakes,", "Most"):
        assert absent not in shown.text


def test_mistakes_with_and_without_heat(tmp_path):
    found = evaluation()
    rows = confident_mistakes(found.probabilities, found.labels, 2).tolist()
    heat = Image.new("RGB", (8, 8), (255, 0, 0))
    shown = page(tmp_path, found, overlays={rows[0]: heat}, mistakes=2)
    images = [Image.open(io.BytesIO(base64.b64decode(each["src"].partition(",")[2]))) for each in shown.all("img")]
    expected = [found.transform.pixels(found.examples.images[row]) for row in rows]
    assert len(images) == 3 and len(shown.all("figure")) == 2
    for image, other in zip(images, (expected[0], heat, expected[1]), strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(other))  # small ones are kept without loss
    for row in rows:
        assert f"{found.probabilities[row].max():.1%} sure" in shown.text
        assert f"{EVIL}[{row}]" in shown.text


def test_it_can_be_read_by_all(tmp_path):
    found = evaluation()
    shown = page(tmp_path, found, history=HISTORY)
    assert all(each.get("alt") for each in shown.all("img"))
    charts = shown.all("svg")
    assert len(charts) == 4 and all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert all(each.get("scope") in ("col", "row") for each in shown.all("th"))
    assert shown.all("html") == [{"lang": "en"}] and len(shown.all("h1")) == len(shown.all("main")) == 1
    assert "loss by epoch: training ends at 0.25, validation ends at 0.5" in [chart["aria-label"] for chart in charts]


def luminance(color):
    """Relative luminance (WCAG 2.2)."""
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_contrast_is_enough_in_light_and_dark(tmp_path):
    text = write_report(tmp_path / "report.html", evaluation()).read_text("utf-8")
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)]
    assert len(schemes) == 3
    for scheme in schemes:
        for ink in ("ink", "muted", "first", "second"):
            for ground in ("page", "panel"):
                bright, dark = sorted((luminance(scheme[ink]), luminance(scheme[ground])), reverse=True)
                assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_colors_are_the_pages(tmp_path):
    text = write_report(tmp_path / "report.html", evaluation(), history=HISTORY).read_text("utf-8")
    assert "#0102" not in text and text.count("var(--first)") > 10


def test_a_report_that_is_there_stays_when_another_fails(tmp_path):
    path = write_report(tmp_path / "report.html", evaluation())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="absent.csv"):
        write_report(path, evaluation(), history=tmp_path / "absent.csv")
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="mistakes=-1"):
        write_report(path, evaluation(), mistakes=-1)


class TestHistory:
    def test_a_csv_log_as_keras_writes_it(self, tmp_path):
        (tmp_path / "log.csv").write_text("epoch,accuracy,loss,val_loss\n0,0.5,1.25,NA\n1,0.75,1.0,1.5\n")
        expected = [{"epoch": 0, "accuracy": 0.5, "loss": 1.25}]
        expected.append({"epoch": 1, "accuracy": 0.75, "loss": 1.0, "val_loss": 1.5})
        assert read_history(tmp_path / "log.csv") == expected

    def test_records_and_columns(self):
        assert read_history([{"loss": 2.0}, {"loss": np.float32(1)}]) == read_history({"loss": [2.0, 1.0]})
        assert read_history({"loss": [2.0, float("nan")]}) == [{"epoch": 1, "loss": 2.0}, {"epoch": 2}]


def test_heat_on_a_image():
    image = Image.new("RGB", (40, 20), (10, 200, 30))
    heat = np.zeros((2, 4))
    heat[0, 3] = 0.25
    found = np.asarray(overlay(image, heat)).astype(int)
    np.testing.assert_array_equal(found[10:, :20], np.broadcast_to([10, 200, 30], (10, 20, 3)))
    changed = np.abs(found - [10, 200, 30]).sum(-1)
    assert np.unravel_index(changed.argmax(), changed.shape)[1] >= 35 and changed.max() > 200
    np.testing.assert_array_equal(np.asarray(overlay(image, np.zeros((2, 4)))), np.asarray(image))
