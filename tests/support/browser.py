"""A real browser, without a window: what a page looks like in it, and what its console says."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120
# Time of the page, which passes as fast as it can be computed.
VIRTUAL_MILLISECONDS = 20_000
ANSWER = re.compile(r'<pre id="answer">(.*?)</pre>', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a browser made of a page: console messages, and the answer of the code that was run in it."""

    console: list[str]
    answer: Any


def browser() -> str:
    """The path of a browser. Skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine: apt install chromium")
    return found


# Run in the page once its charts are drawn, where it may ask and change everything.
ASKING = """
<pre id="answer" hidden></pre><script>
addEventListener("load", async () => {{
  let answer;
  const later = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  try {{
    for (let tries = 0; tries < 100 && document.querySelector(".plot") && !document.documentElement.dataset.charts;
         tries++) await later(100);
    dispatchEvent(new Event("beforeprint"));
    await later(500);
    answer = await (async () => {{ {code} }})();
  }} catch (error) {{ answer = {{ error: String(error) }}; }}
  document.getElementById("answer").textContent = JSON.stringify(answer);
}});
</script></body>"""
# A window can't be as narrow as a phone, but a frame can.
FRAME = """<!doctype html><title>frame</title><style>body {{ margin: 0 }} iframe {{ border: 0; display: block }}</style>
<iframe src="page.html" width="{width}" height="{height}"></iframe><pre id="answer"></pre><script>
const poll = setInterval(() => {{
  const answer = document.querySelector("iframe").contentDocument?.getElementById("answer")?.textContent;
  if (answer) {{ document.getElementById("answer").textContent = answer; clearInterval(poll); }}
}}, 100);
</script>"""


def see(page: Path, code: str, width: int = 1280, height: int = 800, dark: bool = False) -> Seen:
    """Open a page with that many pixels, draw every chart, run code in it, and return what its `return` gave."""
    program = browser()
    with tempfile.TemporaryDirectory() as folder:
        text = page.read_text(encoding="utf-8")
        asking = ASKING.format(code=code)
        (Path(folder) / "page.html").write_text(asking.join(text.rsplit("</body>", 1)), encoding="utf-8")
        frame = Path(folder) / "frame.html"
        frame.write_text(FRAME.format(width=width, height=height), encoding="utf-8")
        done = subprocess.run(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
             "--allow-file-access-from-files", f"--user-data-dir={folder}/profile", "--window-size=2000,1200",
             f"--blink-settings=preferredColorScheme={0 if dark else 1}",
             f"--virtual-time-budget={VIRTUAL_MILLISECONDS}", "--enable-logging=stderr", "--dump-dom", frame.as_uri()],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    found = ANSWER.search(done.stdout)
    assert found is not None, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert found[1], console
    return Seen(console, json.loads(html.unescape(found[1])))
