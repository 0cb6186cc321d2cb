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

NAMES = ("chromium", "chromium-browser", "google-chrome")

HELPERS = """
const byId = id => document.getElementById(id);
const rest = ms => new Promise(done => setTimeout(done, ms));
const press = async (key, more = {}) => {
  document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more}));
  await rest(60);
};
const set = async (id, value, kind = "change") => {
  const field = byId(id);
  if (field.type === "checkbox") field.checked = value; else field.value = value;
  field.dispatchEvent(new Event(kind, {bubbles: true}));
  await rest(60);
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


def acted(page: Path, script: str) -> Any:
    """Open a page, act by a script that returns what it found, and return that.

    The script is put at the end of a copy of the page, which lies beside it.
    """
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    act = f"""<script>
const tell = found => {{ document.body.dataset.found = JSON.stringify(found ?? null); }};
window.addEventListener("error", event => tell({{error: event.message}}));
(async () => {{
{HELPERS}
while (!byId("loading").hidden) await rest(20);
await rest(60);
{script}
}})().then(tell, error => tell({{error: String(error.stack)}}));
</script></body>"""
    copy = page.with_name(f"acted-{page.name}")
    copy.write_text(page.read_text().replace("</body>", act))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1000,800",
        "--virtual-time-budget=20000",
    ]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [browser, *flags, profile, "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<body[^>]* data-found="([^"]*)"', done.stdout)
    assert found, f"the script did not end: {done.stderr[-2000:]}"
    result = json.loads(html.unescape(found[1]))
    assert not (isinstance(result, dict) and "error" in result), result["error"]
    return result
