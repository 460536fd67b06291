"""The summary as one HTML file that works offline: the Markdown's few forms, pictures inside."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

_STYLE = """body{font:14px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:12px;display:block;overflow-x:auto}
td,th{border:1px solid #ccc;padding:2px 6px;text-align:left;white-space:nowrap}th{background:#f3f3f3}
img{max-width:100%}code{background:#f3f3f3}"""
_PICTURE = re.compile(r"!\[(.*?)\]\((.*?)\)")


def page(markdown: str, folder: Path) -> str:
    """HTML of headings, paragraphs, tables and pictures.

    Args:
        markdown: text of :func:`benchmarks.convergence.summary.markdown`.
        folder: where its pictures lie.
    """
    blocks = (_block(block, folder) for block in markdown.split("\n\n") if block.strip())
    title = html.escape(markdown.partition("\n")[0].lstrip("# "))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>\n" + "\n".join(blocks) + "\n</body></html>\n"


def _block(block: str, folder: Path) -> str:
    lines = block.strip().splitlines()
    if lines[0].startswith("#"):
        level = len(lines[0]) - len(lines[0].lstrip("#"))
        rest = _block("\n".join(lines[1:]), folder) if lines[1:] else ""
        return f"<h{level}>{_inline(lines[0].lstrip('# '))}</h{level}>{rest}"
    if lines[0].startswith("|"):
        return _table(lines)
    if _PICTURE.fullmatch(lines[0]):
        return "".join(_picture(line, folder) for line in lines)
    return f"<p>{_inline(' '.join(lines))}</p>"


def _table(lines: list[str]) -> str:
    rows = [[_inline(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{cell}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows[2:])
    return f"<table><tr>{head}</tr>{body}</table>"


def _picture(line: str, folder: Path) -> str:
    match = _PICTURE.fullmatch(line)
    assert match is not None
    data = base64.b64encode((folder / match[2]).read_bytes()).decode()
    return f'<img alt="{html.escape(match[1])}" src="data:image/png;base64,{data}">'


def _inline(text: str) -> str:
    return re.sub(r"`(.*?)`", r"<code>\1</code>", html.escape(text, quote=False))
