"""The report: a page with the table of results, and a page for each executed notebook.

report.py ENTRIES FOLDER

The pages load nothing: figures are PNGs inside them, formulas are MathML, the style is
here. They open from a disk without a network.
"""

import html
import json
import os
import pathlib
import re
import sys

import latex2mathml.converter
import nbformat

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; color: #1b1b1b;
       max-width: 56rem; margin: 2rem auto; padding: 0 1.2rem; }
h1, h2, h3 { line-height: 1.25; }
a { color: #0059a0; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .93rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; }
th { border-bottom: 2px solid #888; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
table.results td:not(:nth-child(2)) { white-space: nowrap; }
pre { overflow-x: auto; }
.failed { color: #a40000; font-weight: 600; }
.input pre, .code pre { background: #f6f7f9; border-left: 3px solid #0072b2; padding: .6rem .8rem;
      font: .82rem/1.45 "DejaVu Sans Mono", ui-monospace, monospace; }
.out pre { color: #444; font: .82rem/1.4 "DejaVu Sans Mono", ui-monospace, monospace;
       padding: 0 .8rem; margin: .4rem 0; white-space: pre-wrap; }
.out img { max-width: 100%; display: block; margin: .8rem 0; }
.out.error pre { color: #a40000; }
math[display="block"] { margin: 1rem 0; }
.hll { background: #ffffcc } .c, .c1, .cm { color: #5f7f5f } .k, .kd, .kt { color: #8b2f8b }
.s, .s2, .s1 { color: #a3541c } .mi, .mf { color: #1b5e9b } .nf, .fm { color: #204a87 }
"""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body>
{body}
</body></html>
"""


def mathml(source, display):
    try:
        return latex2mathml.converter.convert(source, display=display)
    except Exception as error:  # any formula it cannot read is a fault of the notebook
        raise SystemExit(f"the formula {source!r} cannot be shown: {error}") from error


class Renderer(IPythonRenderer):
    """Markdown with its formulas as MathML."""

    def block_math(self, body):
        return mathml(body, "block")

    def inline_math(self, body):
        return mathml(body, "inline")

    def latex_environment(self, name, body):
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


def markdown(cell):
    attachments = cell.get("attachments", {})
    renderer = Renderer(escape=False, exclude_anchor_links=True, attachments=attachments)
    return MarkdownWithMath(renderer=renderer).render(cell.source)


def code(source):
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import RustLexer

    return f'<div class="code">{highlight(source, RustLexer(), HtmlFormatter())}</div>'


def output(cell_output):
    kind = cell_output.output_type
    if kind == "stream":
        return f'<div class="out"><pre>{html.escape(cell_output.text.rstrip())}</pre></div>'
    if kind == "error":
        text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(cell_output.traceback))
        return f'<div class="out error"><pre>{html.escape(text)}</pre></div>'
    data = cell_output.data
    if "image/png" in data:
        png = "".join(data["image/png"]).replace("\n", "")
        alt = html.escape("".join(data.get("text/plain", "figure")), quote=True)
        return f'<div class="out"><img alt="{alt}" src="data:image/png;base64,{png}"></div>'
    if "text/html" in data:
        return f'<div class="out">{"".join(data["text/html"])}</div>'
    return f'<div class="out"><pre>{html.escape("".join(data.get("text/plain", "")))}</pre></div>'


def notebook_page(entry):
    notebook = nbformat.read(entry["executed"], as_version=4)
    parts = ['<p><a href="index.html">All results</a></p>']
    if entry["failed"]:
        parts.append(f'<pre class="failed">{html.escape(entry["failed"])}</pre>')
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(markdown(cell))
        elif cell.cell_type == "code":
            parts.append(code(cell.source))
            parts.extend(output(o) for o in cell.outputs)
    return PAGE.format(title=html.escape(entry["name"]), style=STYLE, body="\n".join(parts))


def index_page(entries):
    rows = []
    for entry in entries:
        name = html.escape(entry["name"])
        about = html.escape(", ".join(filter(None, [entry["budget"], entry["commit"]])))
        link = f'<a href="{name}.html">{name}</a><br><small>{about}</small>'
        seconds = f"{entry['seconds']:.0f}"
        results = [
            (html.escape(what), html.escape(value), html.escape(reference))
            for what, value, reference in entry["results"]
        ]
        if entry["failed"]:
            first = html.escape(entry["failed"].splitlines()[0])
            results.insert(0, (f'<span class="failed">failed: {first}</span>', "", ""))
        for what, value, reference in results or [("ran", "", "")]:
            rows.append(
                f'<tr><td>{link}</td><td>{what}</td><td class="number">{value}</td>'
                f'<td>{reference}</td><td class="number">{seconds}</td></tr>'
            )
            link = seconds = ""
    head = "<tr><th>notebook</th><th>reproduced</th><th>value</th><th>reference</th><th>seconds</th></tr>"
    body = (
        "<h1>Consistency Lab</h1><p>What the notebooks reproduced in their last run on this "
        "machine; below each name its budget and the commit of the library (+: with changes "
        f"since).</p><table class='results'>{head}{''.join(rows)}</table>"
    )
    return PAGE.format(title="Consistency Lab", style=STYLE, body=body)


def write(path, text):
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main():
    entries = json.loads(pathlib.Path(sys.argv[1]).read_text())
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    entries = [e for e in entries if pathlib.Path(e["executed"]).exists()]
    names = {entry["name"] for entry in entries}
    for page in folder.glob("*.html"):
        if page.stem not in names:
            page.unlink()
    for entry in entries:
        write(folder / f"{entry['name']}.html", notebook_page(entry))
    write(folder / "index.html", index_page(entries))


main()
