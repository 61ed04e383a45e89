"""One HTML file of sections: text, tables and pictures, without anything from the network.

`write_report` knows nothing of runs: it lays out `Section`s, whatever they are about. Pictures are Vega-Lite specs, drawn
in the browser by one script bundle per file, in the reader's light or dark; a policy in the page forbids it to load
anything. See `report` for what a run says.
"""

from __future__ import annotations

import html
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.diagnose import bundle, charts

CANVAS_MARKS = 1_500
"""A picture of more marks is drawn on a canvas: as SVG each mark would be an element of the page."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what is there of: text (a line is a paragraph, several are a list), a table (its first row is the
    head), a picture (a Vega-Lite spec; its title and subtitle become text, its description is what screen readers say).
    """

    title: str
    text: str = ""
    table: Sequence[Sequence[Any]] | None = None
    chart: Mapping[str, Any] | None = None


def write_report(path: str | Path, title: str, sections: Iterable[Section], cache: Path | None = None) -> Path:
    """Write the sections into one self-contained HTML file and return its path. `cache`: see `bundle.script`."""
    sections = list(sections)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join(_section(i, section) for i, section in enumerate(sections))
    links = "".join(f'<li><a href="#s{i}">{_text(s.title)}</a></li>' for i, s in enumerate(sections))
    drawn = any(section.chart for section in sections)
    page = _PAGE.format(
        title=_text(title),
        style=_STYLE,
        links=f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 2 else "",
        body=body,
        script=_script(cache) if drawn else "",
    )
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, path)  # two may ask for it at once
    return path


def _section(number: int, section: Section) -> str:
    parts = [f'<section id="s{number}"><h2>{_text(section.title)}</h2>']
    lines = [line for line in section.text.split("\n") if line.strip()]
    if len(lines) > 1:
        parts.append("<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>")
    elif lines:
        parts.append(f"<p>{_text(lines[0])}</p>")
    if section.chart:
        parts.append(_figure(number, section))
    if section.table:
        parts.append(_table(section.table, section.title))
    parts.append("</section>")
    return "\n".join(parts)


def _figure(number: int, section: Section) -> str:
    """The picture's place, with its title as text of the page: that wraps on a phone, and Vega's does not."""
    spec = dict(section.chart or {})
    title = spec.pop("title", "")
    title = title if isinstance(title, Mapping) else {"text": title}
    said = _text(_joined(title.get("text", "")))
    more = _text(_joined(title.get("subtitle", "")))
    label = html.escape(str(spec.get("description") or _joined(title.get("text", "")) or section.title))
    spec.pop("description", None)
    marks = len(spec.get("data", {}).get("values", ())) if isinstance(spec.get("data"), Mapping) else 0
    renderer = "canvas" if marks > CANVAS_MARKS else "svg"
    data = json.dumps(spec, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    caption = (f"<strong>{said}</strong>" if said else "") + (f"<span>{more}</span>" if more else "")
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<div class="chart" role="img" aria-label="{label}" data-renderer="{renderer}" data-spec="c{number}"></div>'
        f'<script type="application/json" id="c{number}">{data}</script></figure>'
    )


def _joined(text: Any) -> str:
    return " ".join(map(str, text)) if isinstance(text, Sequence) and not isinstance(text, str) else str(text)


_NUMBER = re.compile(r"[<≤]?\s?[-−+]?[\d.,]+(e[-+]?\d+)?\s?\S{0,4}|–|not known|not measured|[\d.]+[a-z]+[\d.]+[a-z]+")


def _table(rows: Sequence[Sequence[Any]], title: str) -> str:
    """The first column heads its row; columns of figures stand right."""
    head, *body = [[_cell(cell) for cell in row] for row in rows]
    right = [bool(body) and all(_NUMBER.fullmatch(row[j]) for row in body if j < len(row)) for j in range(len(head))]
    css = [' class="n"' if r else "" for r in right]
    top = "".join(f'<th scope="col"{c}>{_text(cell)}</th>' for cell, c in zip(head, css, strict=True))
    lines = []
    for first, *others in body:
        cells = "".join(f"<td{c}>{_text(cell)}</td>" for cell, c in zip(others, css[1:], strict=False))
        lines.append(f'<tr><th scope="row"{css[0]}>{_text(first)}</th>{cells}</tr>')
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{html.escape(title)}"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _text(value: str) -> str:
    """Escaped, and a figure stays beside its per cent sign."""
    return html.escape(value, quote=False).replace(" %", "\u00a0%")


def _script(cache: Path | None) -> str:
    themes = json.dumps({"light": charts.theme(), "dark": charts.theme(dark=True)})
    return f"<script>{bundle.script(cache)}</script>\n<script>const themes = {themes};\n{_DRAW}</script>"


_DRAW = """
// As wide as there is room: specs are made for a desk.
function fitted(spec, room) {
  if (typeof spec.width === "number" && spec.width > room - 80) return fitted({...spec, width: "container"}, room);
  if (spec.width === "container" && typeof spec.height !== "number") {
    return {...spec, autosize: {type: "fit-x", contains: "padding"}};
  }
  const {hconcat, ...rest} = spec;
  return hconcat ? {...rest, concat: hconcat, columns: hconcat.length} : spec;
}
// Panels go below each other as long as they do not go side by side.
async function paint(place, spec, options) {
  const made = await vegaEmbed(place, spec, options);
  const across = spec.concat ? Math.min(spec.columns || spec.concat.length, spec.concat.length) : 1;
  if (across < 2 || place.scrollWidth <= place.clientWidth + 1) return;
  made.finalize();
  await paint(place, {...spec, columns: across - 1}, options);
}
const dark = matchMedia("(prefers-color-scheme: dark)");
async function draw() {
  let drawn = 0;
  for (const place of document.querySelectorAll(".chart")) {
    const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
    try {
      const shade = dark.matches ? "dark" : "light";
      await paint(place, fitted(spec, place.clientWidth), {
        actions: false, config: themes[shade], renderer: place.dataset.renderer, tooltip: {theme: shade},
      });
      drawn += 1;
    } catch (error) {
      place.textContent = "This picture could not be drawn: " + error;
    }
  }
  document.documentElement.dataset.drawn = drawn;
}
dark.addEventListener("change", draw);
draw();
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --quiet: #5b6470; --line: #dde1e6; --page: #fff; --link: #1f6fb4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --quiet: #aab2bd; --line: #3a4149; --page: #15181c; --link: #8cbfe6; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 0 0 .75rem; }
section { padding-top: 2.25rem; }
a { color: var(--link); text-underline-offset: .15em; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0; padding: 0; font-size: .9rem; }
section > ul { padding-left: 1.2rem; margin: 0 0 1rem; }
section > ul li { margin: .2rem 0; overflow-wrap: anywhere; }
figure { margin: 0 0 1.25rem; }
figcaption strong { display: block; font-weight: 600; }
figcaption span { display: block; color: var(--quiet); font-size: .875rem; margin-bottom: .5rem; }
.chart { width: 100%; min-height: 3rem; overflow: auto hidden; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  font-weight: 400; overflow-wrap: break-word; }
thead th { color: var(--quiet); white-space: nowrap; }
.n { text-align: right; white-space: nowrap; padding: .4rem 0 .4rem .75rem; }
.n + :not(.n) { padding-left: 1.5rem; }
footer { margin-top: 3rem; color: var(--quiet); font-size: .8rem; }
@media (max-width: 36rem) { main { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.4rem; } }
@media print { nav { display: none; } section { break-inside: avoid; } }
"""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
"""Nothing may be loaded. 'unsafe-eval': Vega compiles the expressions of a spec."""

_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{{title}}</title>
<style>{{style}}</style>
</head>
<body>
<main>
<header><h1>{{title}}</h1>{{links}}</header>
<noscript><p>The pictures are drawn by the script in this file; text and tables are whole without it.</p></noscript>
{{body}}
<footer>Made by millrace. This file holds everything that it shows.</footer>
</main>
{{script}}
</body>
</html>
"""
