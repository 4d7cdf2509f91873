"""A real Chromium that looks at pages, and everything that goes wrong on them."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NASTY = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
browser_test = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: install Chromium or Chrome to run these"),
]
LOOK = "import('/static/live.js').then((live) => live.look())"
INKED = """([name, colour]) => {
  const canvas = document.querySelector(`[data-plot="${name}"] canvas`);
  if (!canvas) return -1;
  const over = canvas.parentElement.querySelector(".u-over");
  const scale = canvas.width / canvas.clientWidth;
  const box = [over.offsetLeft, over.offsetTop, over.offsetWidth, over.offsetHeight];
  const one = document.createElement("canvas").getContext("2d");
  one.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${colour}`).trim();
  one.fillRect(0, 0, 1, 1);
  const [r, g, b] = one.getImageData(0, 0, 1, 1).data;
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(...box.map((each) => Math.round(each * scale)));
  let count = 0;
  for (let at = 0; at < data.length; at += 4) {
    const away = Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b);
    if (data[at + 3] > 200 && away < 40) count++;
  }
  return count;
}"""


def inked(page, plot: str, colour: str, *, least: int = -2) -> int:
    """Pixels of a colour of the stylesheet within the axes of a plot, waited for until they are more than ``least``."""
    ends = time.monotonic() + 30
    while (found := page.evaluate(INKED, [plot, colour])) <= least and time.monotonic() < ends:
        page.wait_for_timeout(50)
    return found


@dataclass(slots=True)
class Eyes:
    """A browser and everything that went wrong on its pages."""

    browser: object
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def open(self, url: str, *, width: int = 1280, scheme: str = "light") -> Iterator:
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.problems.clear()
        try:
            page.goto(url)
            yield page
            assert self.problems == []
            assert page.evaluate("window.hacked") is None
        finally:
            context.close()
