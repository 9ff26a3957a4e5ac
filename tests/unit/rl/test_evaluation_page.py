"""The report page looked at in headless Chromium: on a phone and a desk, light and dark, and on paper."""

import struct
import zlib

import pytest

from rl.evaluation.html import render_html
from rl.evaluation.report import add_truth
from rl.evaluation.side_by_side import compare_reports, comparison_html
from tests.chromium import find_chromium, look
from tests.unit.rl.test_evaluation_report import example_report, returns_of

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine")

# Text whose contrast with what lies behind it is below 4.5 to 1, the least that WCAG 2 calls readable.
FAINT = """(() => {
  const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const node of document.querySelectorAll("body *")) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
    const style = getComputedStyle(node);
    const ink = light(rgb(node.ownerSVGElement ? style.fill : style.color)), ground = light(rgb(String(behind(node))));
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    if (ratio < 4.5) faint.push(`${node.tagName} ${node.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return faint;
})()"""
EXPRESSIONS = {
    "width": "document.documentElement.scrollWidth",
    "cut": """[...document.querySelectorAll("p, li, h1, h2, h3")]
        .filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.textContent.slice(0, 40))""",
    "small": """[...document.querySelectorAll("p, li, td, th")]
        .filter((node) => parseFloat(getComputedStyle(node).fontSize) < 12).length""",
    "tables": """[...document.querySelectorAll("table")].filter((node) => !node.closest(".scroll")).length""",
    "first": "document.body.innerText.trim().split('\\n')[0]",
    "drawn": """[...document.querySelectorAll("svg")].filter((node) => node.getBBox().width > 0).length""",
    "ground": "getComputedStyle(document.body).backgroundColor",
    "faint": FAINT,
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    report = add_truth(example_report(), returns_of(random=1, ppo=2, oracle=5), "oracle")
    (folder / "report.html").write_text(render_html(report))
    both = compare_reports({"runs/a": report, "runs/b": {**report, "summary": "Another."}})
    (folder / "compare.html").write_text(comparison_html(both))
    return folder, report


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_report_reads_on_phone_and_desk_in_light_and_dark(pages, width, height, scheme):
    folder, report = pages

    seen = look(folder / "report.html", width, height, scheme, EXPRESSIONS)

    assert seen.requests == [(folder / "report.html").as_uri()]  # nothing from the network
    assert seen.errors == []
    assert seen.values["first"] == report["summary"]
    assert seen.values["width"] == width  # wide tables scroll in their own box
    assert seen.values["cut"] == []
    assert (seen.values["small"], seen.values["tables"]) == (0, 0)
    assert seen.values["drawn"] == render_html(report).count("<svg")
    assert seen.values["faint"] == []
    assert brightness(seen.values["ground"]) == (scheme == "light")
    assert has_ink(seen.screenshot)


@pytest.mark.parametrize("width", [390, 1280])
def test_comparison_reads_too(pages, width):
    folder, _ = pages

    seen = look(folder / "compare.html", width, 844, "dark", EXPRESSIONS)

    assert seen.requests == [(folder / "compare.html").as_uri()]
    assert (seen.values["width"], seen.values["cut"], seen.values["faint"]) == (width, [], [])
    assert seen.values["first"] == "2 runs side by side"


def test_nothing_is_cut_off_on_paper(pages):
    folder, report = pages

    seen = look(folder / "report.html", 718, 1000, "print", EXPRESSIONS)  # A4 less its margins

    assert seen.values["width"] == 718  # tables cannot be scrolled on paper
    assert (seen.values["cut"], seen.values["faint"]) == ([], [])
    assert seen.values["drawn"] == render_html(report).count("<svg")
    assert seen.values["ground"] == "rgb(255, 255, 255)"


def brightness(colour: str) -> bool:
    """Whether a CSS rgb() is nearer to white than to black."""
    return sum(int(part) for part in colour.strip("rgb()").split(",")) > 3 * 127


def has_ink(png: bytes) -> bool:
    """Whether the picture's rows are not all one colour: their compressed bytes say so."""
    data, place = b"", 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    return len(set(zlib.decompress(data)[::97])) > 8
