"""The HTML report, read by an HTML parser."""

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
    """Parsed HTML page: its elements with their attributes, its text and its tables."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text, self.tables, self.cell = [], [], "", [], None
        self.feed(text)
        self.close()
        assert self.open == [], "some elements are not closed"

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
    probabilities = np.exp(random.normal(size=(count, classes)) + 2 * np.eye(classes)[labels])
    probabilities = (probabilities / probabilities.sum(1, keepdims=True)).astype("float32")
    names = names or (EVIL, *(f"class {i}" for i in range(1, classes)))
    images = list(random.integers(0, 256, (count, 12, 10, 3)).astype("uint8"))
    examples = Examples(images, labels, names, [f"{EVIL}[{i}]" for i in range(count)])
    result = Evaluation(
        model=EVIL,
        runtime="NumPy",
        class_names=names,
        indices=np.arange(count),
        probabilities=probabilities,
        labels=labels,
        metrics=metrics(probabilities, labels),
        damaged=(ImageError(f"{EVIL} can't be read."),),
        speed=Speed(123.4, 5.67, 4, 89.0),
        costs={"parameters": 1234567, "macs": 7654321},
        examples=examples,
        transform=Preprocessing((8, 8), 1.0, "bilinear", None, None),
    )
    return dataclasses.replace(result, **changes)


def write_and_parse(tmp_path, result, **options):
    return Page(write_report(tmp_path / "new" / "report.html", result, **options).read_text("utf-8"))


HISTORY = [{"epoch": i, "loss": 1 / (i + 1), "val_loss": 2 / (i + 1), "learning_rate": 0.1} for i in range(4)]


def test_report_is_self_contained(tmp_path):
    result = evaluation()
    rows = confident_mistakes(result.probabilities, result.labels, 3)
    overlays = {int(row): overlay(Image.new("RGB", (8, 8)), np.eye(2)) for row in rows}
    page = write_and_parse(tmp_path, result, history=HISTORY, overlays=overlays, facts={"Command": EVIL})
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")
    text = (tmp_path / "new" / "report.html").read_text("utf-8")
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_user_text_is_escaped(tmp_path):
    page = write_and_parse(tmp_path, evaluation(), facts={EVIL: EVIL}, history=[{"loss": 1.0, "$x$": 1, "val_$x$": 2}])
    assert len(page.all("script")) == 1  # the report's own
    assert page.text.count(EVIL) >= 8


def test_report_shows_metrics_and_tables(tmp_path):
    result = evaluation()
    page = write_and_parse(tmp_path, result)
    assert f"{result.metrics.top1:.2%}" in page.text and f"{result.metrics.log_loss:.4f}" in page.text
    assert f"{result.metrics.calibration.ece:.4f}" in page.text
    for text in ("123.4", "a batch of 4", "5.67 ms", "89 MB", "1,234,567", "7,654,321", "1 in total"):
        assert text in page.text
    matrix = next(table for table in page.tables if table[0] == ["", *result.class_names])
    assert [row[0] for row in matrix[1:]] == list(result.class_names)
    counts = [[int(cell or 0) for cell in row[1:]] for row in matrix[1:]]
    np.testing.assert_array_equal(counts, result.metrics.confusion)
    classes = next(table for table in page.tables if table[0] == ["class", "images", "precision", "recall", "F1"])
    for row, *expected in zip(
        classes[1:], result.class_names, result.metrics.support, result.metrics.recall, strict=True
    ):
        assert [row[0], row[1], row[3]] == [expected[0], str(expected[1]), f"{expected[2]:.1%}"]
    assert "Training" not in page.text


@pytest.mark.parametrize("classes", [2, 24, 25, 200])
def test_any_number_of_classes_is_shown(classes, tmp_path):
    result = evaluation(classes, count=max(100, 5 * classes))
    page = write_and_parse(tmp_path, result, mistakes=0)
    matrices = [image for image in page.all("img") if image.get("class") == "matrix"]
    assert len(matrices) == (classes > 24)
    if matrices:
        image = Image.open(io.BytesIO(base64.b64decode(matrices[0]["src"].partition(",")[2])))
        scale = image.width // classes
        cells = np.asarray(image)[scale // 2 :: scale, scale // 2 :: scale]
        np.testing.assert_array_equal(cells[..., 3] > 0, result.metrics.confusion > 0)
        assert f"{classes} classes" in matrices[0]["alt"]
    most = np.where(np.eye(classes), 0, result.metrics.confusion).max()
    pairs = next(table for table in page.tables if table[0][0] == "true class")
    assert int(pairs[1][2]) == most and len(pairs) <= 13


def test_class_without_images_shows_dashes(tmp_path):
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]], "float32")
    result = evaluation(3, 2, labels=np.array([0, 0]), probabilities=probabilities)
    result = dataclasses.replace(
        result, metrics=metrics(probabilities, result.labels), speed=None, costs={}, damaged=()
    )
    page = write_and_parse(tmp_path, result)
    classes = next(table for table in page.tables if table[0][0] == "class")
    assert classes[3][1:] == ["0", "–", "–", "–"]
    assert "nan" not in page.text.lower()
    for absent in ("Speed", "Skipped", "mistakes,", "Most"):
        assert absent not in page.text


def test_mistakes_are_shown_with_and_without_heat(tmp_path):
    result = evaluation()
    rows = confident_mistakes(result.probabilities, result.labels, 2).tolist()
    heat = Image.new("RGB", (8, 8), (255, 0, 0))
    page = write_and_parse(tmp_path, result, overlays={rows[0]: heat}, mistakes=2)
    images = [Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) for image in page.all("img")]
    expected = [result.transform.pixels(result.examples.images[row]) for row in rows]
    assert len(images) == 3 and len(page.all("figure")) == 2
    for image, expected_image in zip(images, (expected[0], heat, expected[1]), strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected_image))  # small images are lossless
    for row in rows:
        assert f"{result.probabilities[row].max():.1%}" in page.text
        assert f"{EVIL}[{row}]" in page.text


def test_report_is_accessible(tmp_path):
    result = evaluation()
    page = write_and_parse(tmp_path, result, history=HISTORY)
    assert all(element.get("alt") for element in page.all("img"))
    charts = page.all("svg")
    assert len(charts) == 4 and all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert all(element.get("scope") in ("col", "row") for element in page.all("th"))
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == len(page.all("main")) == 1
    assert "loss by epoch: training ends at 0.25, validation ends at 0.5" in [chart["aria-label"] for chart in charts]


def luminance(color):
    """Return the relative luminance of a color (WCAG 2.2)."""
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_contrast_suffices_in_light_and_dark_mode(tmp_path):
    text = write_report(tmp_path / "report.html", evaluation()).read_text("utf-8")
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)]
    assert len(schemes) == 3
    for scheme in schemes:
        for foreground in ("ink", "muted", "first", "second"):
            for background in ("page", "panel"):
                bright, dark = sorted((luminance(scheme[foreground]), luminance(scheme[background])), reverse=True)
                assert (bright + 0.05) / (dark + 0.05) >= 4.5, (foreground, background)


def test_charts_use_the_colors_of_the_page(tmp_path):
    text = write_report(tmp_path / "report.html", evaluation(), history=HISTORY).read_text("utf-8")
    assert "#0102" not in text and text.count("var(--first)") > 10


def test_failed_report_keeps_the_existing_one(tmp_path):
    path = write_report(tmp_path / "report.html", evaluation())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="absent.csv"):
        write_report(path, evaluation(), history=tmp_path / "absent.csv")
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="mistakes=-1"):
        write_report(path, evaluation(), mistakes=-1)


class TestHistory:
    def test_csv_log_of_keras_is_read(self, tmp_path):
        (tmp_path / "log.csv").write_text("epoch,accuracy,loss,val_loss\n0,0.5,1.25,NA\n1,0.75,1.0,1.5\n")
        expected = [{"epoch": 0, "accuracy": 0.5, "loss": 1.25}]
        expected.append({"epoch": 1, "accuracy": 0.75, "loss": 1.0, "val_loss": 1.5})
        assert read_history(tmp_path / "log.csv") == expected

    def test_records_and_columns_are_equivalent(self):
        assert read_history([{"loss": 2.0}, {"loss": np.float32(1)}]) == read_history({"loss": [2.0, 1.0]})
        assert read_history({"loss": [2.0, float("nan")]}) == [{"epoch": 1, "loss": 2.0}, {"epoch": 2}]


def test_overlay_changes_the_hot_region():
    image = Image.new("RGB", (40, 20), (10, 200, 30))
    heat = np.zeros((2, 4))
    heat[0, 3] = 0.25
    actual = np.asarray(overlay(image, heat)).astype(int)
    np.testing.assert_array_equal(actual[10:, :20], np.broadcast_to([10, 200, 30], (10, 20, 3)))
    changed = np.abs(actual - [10, 200, 30]).sum(-1)
    assert np.unravel_index(changed.argmax(), changed.shape)[1] >= 35 and changed.max() > 200
    np.testing.assert_array_equal(np.asarray(overlay(image, np.zeros((2, 4)))), np.asarray(image))
