"""The pages in a browser: on a phone, by keyboard, in the dark, on paper."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys

from pipeline.metadata.outline import Outline
from pipeline.records.summary import SUMMARY_FILE, RunSummary
from pipeline.report.compare import write_comparison
from pipeline.report.index import write_index
from pipeline.report.runs import RunRecord
from pipeline.workspace import CONFIG_FILE, Workspace
from tests.pipeline.report.hand_made import (
    BLESSED,
    EVIL,
    HUB,
    LITE,
    make_metrics,
    make_summary,
    save_model,
    write_artifacts,
    write_results,
)
from tests.pipeline.report.test_compare import REVERSED

#: Every text's contrast with what is behind it, by WCAG 2.1; those below 4.5.
CONTRASTS = """
const parse = (color) => [...color.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const light = (color) => color.map(linear).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
function ground(element) {
  if (!element) return [255, 255, 255];
  return over(parse(getComputedStyle(element).backgroundColor), ground(element.parentElement));
}
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
  if (!text || element.matches("script, title") || !element.getClientRects().length) continue;
  const style = getComputedStyle(element), below = ground(element);
  const color = over(parse(element.closest("svg") ? style.fill : style.color), below);
  const [high, low] = [light(color), light(below)].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.tagName} ${text.slice(0, 40)}`);
}
return found;
"""

#: What a page lacks for those who do not see it.
GAPS = """
const all = (css) => [...document.querySelectorAll(css)];
const found = all("img:not([alt]), th:not([scope])");
found.push(...all("[aria-labelledby]").filter((e) => !document.getElementById(e.getAttribute("aria-labelledby"))));
const ids = all("[id]").map((element) => element.id);
if (new Set(ids).size !== ids.length) found.push(document.body);
if (all("h1").length !== 1) found.push(document.body);
found.push(...all("table").filter((table) => !table.querySelector("th")));
found.push(...all("input, .wide").filter((element) => !element.getAttribute("aria-label")));
found.push(...all("svg, .bar").filter((element) => !element.getAttribute("aria-label")));
return found.map((element) => element.outerHTML.slice(0, 200));
"""


#: Words of a table that stand in more than one line.
BROKEN_WORDS = """
const found = [], range = document.createRange();
for (const cell of document.querySelectorAll("#targets ~ .wide :is(th, td)")) {
  for (const text of cell.childNodes) {
    if (text.nodeType !== 3) continue;
    for (const word of text.data.matchAll(/[^\\s-]+/g)) {
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((box) => box.top)).size > 1) found.push(word[0]);
    }
  }
}
return found;
"""


def open_page(browser: Chrome, page: Path, width: int = 360) -> None:
    """Opens a page as a device of that width shows it, all details unfolded."""
    device = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 800}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    browser.get(page.as_uri())
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")


def emulate(browser: Chrome, media: str = "", scheme: str = "light") -> None:
    """Shows pages as on paper, or in light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def screenshot(browser: Chrome, to: Path) -> None:
    """Keeps the whole page as an image."""
    height = browser.execute_script("return document.documentElement.scrollHeight")
    width = browser.execute_script("return innerWidth")
    device = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    assert browser.save_screenshot(str(to))


@pytest.fixture
def pages(page: Callable[..., str], folder: Path, tmp_path: Path, model: Path) -> dict[str, Path]:
    """Name -> file of each kind of page."""
    workspace, earlier = Workspace(tmp_path), tmp_path / "runs" / "20251231-000000-000"
    (earlier / "artifacts").mkdir(parents=True)
    (earlier / CONFIG_FILE).write_text('{"evaluation": {"min_mean_iou": 0.4}}')
    page(
        summary := make_summary(**BLESSED, error=EVIL),
        origin=Outline(f"demo version 7, served from /{'a-long-folder-' * 9}"),
    )
    (folder / SUMMARY_FILE).write_text(summary.model_dump_json())
    reverse = tmp_path / "reverse"
    reverse.mkdir()
    other = RunRecord(
        RunSummary.model_validate(copy.deepcopy(summary.model_dump()) | {"run_id": earlier.name}),
        write_artifacts(earlier / "artifacts", save_model(reverse, reverse=True), served=False),
        earlier,
    )
    write_results(earlier / "artifacts" / "evaluation", REVERSED, served=False)
    (tmp_path / "ours").mkdir()
    ours = RunRecord(summary, write_artifacts(tmp_path / "ours", model), folder)
    return {
        "report": folder / "report.html",
        "compare": write_comparison(ours, other),
        "index": write_index(workspace),
    }


def test_pages_show_themselves_without_complaint_on_a_phone(pages: dict[str, Path], browser: Chrome, tmp_path: Path):
    for name, file in pages.items():
        open_page(browser, file)
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360, name
        assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
        screenshot(browser, tmp_path / f"{name}-phone.png")
        open_page(browser, file, 1200)
        screenshot(browser, tmp_path / f"{name}.png")
    assert len(list(tmp_path.glob("*.png"))) == 6


@pytest.mark.parametrize("width", [320, 360, 390, 1280])
def test_long_names_make_no_page_wider_than_its_window_and_break_no_word_of_the_targets(
    page: Callable[..., str], folder: Path, browser: Chrome, tmp_path: Path, width: int
):
    metrics = make_metrics("traffic_sign_and_its_pole_(background)")
    names = [{"name": name} for name in metrics.iou]
    summary = make_summary(**BLESSED | {"metrics": metrics, "baseline": None}, lite=LITE, hub=HUB)
    summary.config["data"]["label_map"]["classes"] = names
    page(summary, stages={})

    open_page(browser, folder / "report.html", width)

    screenshot(browser, tmp_path / f"{width}.png")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(BROKEN_WORDS) == []


def test_pages_tell_those_who_do_not_see_them_everything(pages: dict[str, Path], browser: Chrome):
    for file in pages.values():
        open_page(browser, file)
        assert browser.execute_script(GAPS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(
    pages: dict[str, Path], browser: Chrome, tmp_path: Path, scheme: str
):
    emulate(browser, scheme=scheme)
    for name, file in pages.items():
        open_page(browser, file, 1200)
        assert browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
        assert browser.execute_script(CONTRASTS) == []
        screenshot(browser, tmp_path / f"{name}-{scheme}.png")


def right_edge(browser: Chrome) -> str:
    """How much of the first prediction is cut off."""
    script = "return getComputedStyle(document.querySelector('.below ~ img')).clipPath"
    return str(browser.execute_script(script))


@pytest.mark.parametrize("name", ["report", "compare"])
def test_the_slider_wipes_by_mouse_and_by_keyboard(pages: dict[str, Path], browser: Chrome, name: str, tmp_path: Path):
    open_page(browser, pages[name], 1200)
    slider = browser.find_element("css selector", "input.wipe")
    below = browser.find_element("css selector", ".below")
    images = browser.find_elements("css selector", "figure:first-of-type .tile:not(:has(.wipe)) img")
    assert below.get_attribute("src") == images[0 if name == "report" else 2].get_attribute("src")
    assert right_edge(browser) == "inset(0px calc(0%) 0px 0px)" or right_edge(browser).startswith("inset(0px 0%")

    ActionChains(browser).move_to_element(slider).click().perform()
    assert 40 <= int(slider.get_attribute("value") or "") <= 60
    middle = right_edge(browser)
    slider.send_keys(Keys.HOME)
    assert slider.get_attribute("value") == "0" and right_edge(browser) != middle
    screenshot(browser, tmp_path / f"{name}-wiped.png")
    slider.send_keys(Keys.ARROW_RIGHT)
    assert slider.get_attribute("value") == "1"
    assert browser.get_log("browser") == []


def test_on_paper_every_image_is_there_as_a_whole(pages: dict[str, Path], browser: Chrome, tmp_path: Path):
    emulate(browser, media="print", scheme="dark")
    open_page(browser, pages["report"], 800)
    browser.find_element("css selector", "input.wipe")
    assert not any(part.is_displayed() for part in browser.find_elements("css selector", ".wipe, .below"))
    assert right_edge(browser) == "none"
    assert browser.execute_script("return getComputedStyle(document.body).color") == "rgb(28, 39, 51)", "dark ink"
    assert browser.execute_script("return getComputedStyle(document.body).colorScheme") == "light"
    screenshot(browser, tmp_path / "paper.png")


def test_without_script_every_image_is_there(pages: dict[str, Path], browser: Chrome):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(pages["report"].as_uri())
    shown = browser.find_elements("css selector", ".images img")
    assert len(shown) == 12
    assert not any(part.is_displayed() for part in browser.find_elements("css selector", ".wipe"))
