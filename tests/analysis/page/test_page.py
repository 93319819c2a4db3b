"""The page: safe, without network, in a real browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qup.analysis.page.render import embedded
from tests.analysis.world import content


class Page(HTMLParser):
    """Collects what matters of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.scripts = 0
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.scripts += tag == "script"
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("src", "href", "xlink:href", "data", "action"):
            if name in values:
                self.links.append(values[name])
        if values.get("role") == "img":
            self.labels.append(values.get("aria-label", ""))


def test_the_page_needs_no_network_and_every_picture_is_told_in_words(lab) -> None:
    page = Page()
    page.feed(content(lab[2]))
    assert all(link.startswith("#") for link in page.links)
    assert len(page.labels) == len(list((lab[2].parent / "figures").glob("*.svg")))
    assert all(len(label) > 40 and "lab_" in label for label in page.labels)
    sections = [link[1:] for link in re.findall(r"<nav.*?</nav>", content(lab[2]), re.DOTALL)[0].split('href="')[1:]]
    assert {link.split('"')[0] for link in sections} <= set(page.ids)
    assert "default-src 'none'" in content(lab[2])
    assert "A toy world" in content(lab[2])
    assert "first replicate" not in content(lab[2])


def test_html_in_traces_is_text(lab) -> None:
    page = Page()
    page.feed(content(lab[2]))
    assert page.scripts == 2
    assert "<script>alert" not in content(lab[2])
    assert "<b>bold" not in content(lab[2])
    assert embedded({"a": "</script><!--\u2028"}) == '{"a":"\\u003c/script\\u003e\\u003c!--\\u2028"}'


def in_chromium(page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    """The page's DOM after its scripts have run, and on stderr what they wrote to the console."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    command = [
        str(browser), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000",
        f"--user-data-dir={profile}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.browser
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="chromium is not installed")
def test_on_a_phone_only_tables_scroll_sideways(lab, tmp_path) -> None:
    """The page in a frame of 390 points: nothing of it is wider than that."""
    frame = tmp_path / "phone.html"
    measure = "['scrollWidth', 'clientWidth'].map(name => f.contentDocument.documentElement[name]).join(' of ')"
    frame.write_text(
        f'<iframe id="f" width="390" height="800" style="border:0" srcdoc="{html.escape(content(lab[2]))}"></iframe>'
        f"<script>f.onload = () => setTimeout(() => document.title = {measure}, 300)</script>",
        encoding="utf-8",
    )
    shown = in_chromium(frame, tmp_path)
    ((wide, room),) = re.findall(r"<title>(\d+) of (\d+)</title>", shown.stdout)
    assert 350 < int(room) <= 390
    assert wide == room


@pytest.mark.browser
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="chromium is not installed")
def test_a_browser_shows_it_without_a_console_error(lab, tmp_path) -> None:
    shown = in_chromium(lab[2], tmp_path)
    assert 'class="t new"' in shown.stdout
    assert "&lt;i&gt;more&lt;/i&gt;" in shown.stdout
    errors = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert not errors, errors


@pytest.mark.browser
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="chromium is not installed")
def test_on_a_phone_navigation_shows_that_it_goes_on_and_in_print_every_table_is_open(lab, tmp_path) -> None:
    """Measured in a frame of 390 points: steps of the navigation, the setup's fold, and tables as printing begins."""
    frame = tmp_path / "phone.html"
    script = """
    f.onload = () => setTimeout(() => {
      const d = f.contentDocument, shut = () => d.querySelectorAll("details.fold:not([open]), details.setup:not([open])").length;
      const steps = [...d.querySelectorAll("nav .step")].map(one => (one.hidden ? "hidden" : one.disabled ? "end" : "more")).join(" ");
      const before = shut();
      f.contentWindow.dispatchEvent(new Event("beforeprint"));
      const during = shut();
      f.contentWindow.dispatchEvent(new Event("afterprint"));
      document.title = [steps, before > 0, during, shut() === before].join("|");
    }, 300)"""
    frame.write_text(
        f'<iframe id="f" width="390" height="800" srcdoc="{html.escape(content(lab[2]))}"></iframe><script>{script}</script>',
        encoding="utf-8",
    )
    (measured,) = re.findall(r"<title>(.*?)</title>", in_chromium(frame, tmp_path).stdout)
    assert measured == "end more|true|0|true"


def test_numbers_say_what_they_are(lab) -> None:
    """Intervals and p beside the number; every word of the rule explained on the card where it stands."""
    page = html.unescape(content(lab[2]))
    for said in ("points, 95 % alone", "Holm over 40", "What was run".lower(), "In words", "points above or below slm_rft"):
        assert said in page, said
    for card in re.findall(r'<article class="card first.*?</article>', page, re.DOTALL):
        badges = set(re.findall(r'<span class="badge [^"]*">([^<]+)</span>', card))
        explained = set(re.findall(r'<dt><span class="badge [^"]*">([^<]+)</span></dt>', card))
        assert badges - explained <= {"worse", "better", "equally"}, card[:200]
        assert explained
