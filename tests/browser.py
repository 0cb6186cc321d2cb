"""Pages in a headless browser: a script that acts as a reader, and what it found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# Headless browsers that skip the waiting do not draw frames in time: timers stand in for them.
FRAMES = "<script>window.requestAnimationFrame = draw => setTimeout(draw, 10);</script>"

NAMES = ("chromium", "chromium-browser", "google-chrome")

HELPERS = """
const byId = id => document.getElementById(id);
const rest = ms => new Promise(done => setTimeout(done, ms));
const drawn = () => rest(40);
const ready = async () => { do await rest(20); while (!byId("loading").hidden); await drawn(); };
const press = async (key, more = {}) => {
  document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more}));
  await drawn();
};
const set = async (id, value, kind = "change") => {
  const field = byId(id);
  if (field.type === "checkbox") field.checked = value; else field.value = value;
  field.dispatchEvent(new Event(kind, {bubbles: true}));
  await drawn();
};
// Colour of a place of a canvas, in shares of its width and height.
const colour = (n, x, y) => {
  const canvas = document.querySelectorAll("canvas")[n];
  const [column, row] = [Math.round(x * canvas.width), Math.round(y * canvas.height)];
  return [...canvas.getContext("2d").getImageData(column, row, 1, 1).data];
};
const pixels = n => {
  const canvas = document.querySelectorAll("canvas")[n];
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
};
"""


def acted(page: Path, **scripts: str) -> dict[str, Any]:
    """Open a page once, act by scripts in turn, and return what each of them returned, by its name.

    They are put at the end of a copy of the page, which lies beside it.
    """
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    steps = "\n".join(
        f"found.{name} = await (async () => {{{script}}})();" for name, script in scripts.items()
    )
    act = f"""<script>
const tell = found => {{ document.body.dataset.found = JSON.stringify(found ?? null); }};
window.addEventListener("error", event => tell({{error: event.message}}));
(async () => {{
{HELPERS}
await ready();
const found = {{}};
{steps}
return found;
}})().then(tell, error => tell({{error: String(error.stack)}}));
</script></body>"""
    copy = page.with_name(f"acted-{page.name}")
    copy.write_text(page.read_text().replace("<body>", f"<body>{FRAMES}").replace("</body>", act))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,800"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=60000"]
    command += ["--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<body[^>]* data-found="([^"]*)"', done.stdout)
    assert found, f"the script did not end: {done.stderr[-2000:]}"
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert "error" not in result, result["error"]
    return result
