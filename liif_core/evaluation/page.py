"""A page of HTML that is one file: styles and pictures are inside, and nothing is loaded from elsewhere."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --back: #ffffff; --line: #c8c8c8; --soft: #f3f3f3; --note: #8a4b00;
  --c0: #0072b2; --c1: #d55e00; --c2: #008a64; --c3: #b0508a; --c4: #8f7400; --c5: #2f7fb5; --c6: #555555; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --back: #161616; --line: #4a4a4a; --soft: #242424;
  --note: #ffbf66; --c0: #66b3e6; --c1: #ff8c42; --c2: #3fc79a; --c3: #e08fc0; --c4: #e0c030; --c5: #9ad0f5;
  --c6: #bbbbbb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; font-size: 1.3rem; } h3 { font-size: 1.05rem; }
p, li { max-width: 48rem; } .note { color: var(--note); }
.wide { overflow-x: auto; } .wide:focus-visible { outline: 2px solid var(--c0); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; padding: .3rem 0; } td { white-space: nowrap; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th { vertical-align: bottom; } th.text, td.text { text-align: left; } tbody tr:hover { background: var(--soft); }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--c0); }
th button::after { content: " \\2195"; opacity: .5; }
th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
figure { margin: 1rem 0; } .row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; }
.row figure { margin: 0; flex: 1 1 10rem; max-width: 14rem; } figcaption { font-size: .85rem; max-width: 48rem; }
.row img { display: block; width: 100%; height: auto; background: var(--soft); }
img.crop { image-rendering: pixelated; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); stroke-width: 1; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(title: str, body: Sequence[str], script: str = "") -> str:
    """A whole page. ``body`` and ``script`` are used as they are."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = (1,)) -> str:
    """A table; ``text`` are the columns that are aligned to the left. Cells are plain text."""
    kinds = [' class="text"' if i in text else "" for i in range(len(heads))]
    head = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for kind, cell in zip(kinds, heads))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row)) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(caption, quote=True)}"><table>\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def definitions(entries: Sequence[tuple[str, str]]) -> str:
    """A list of names and what they stand for."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries) + "</dl>"


def figure(content: str, caption: str) -> str:
    """``content``, which is HTML, with a caption below."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(pixels: np.ndarray, text: str, kind: str = "") -> str:
    """An image (h, w, 1 or 3) uint8 inside the page; of other channels the first is shown. ``text`` describes it."""
    shown = pixels if pixels.shape[2] in (1, 3) else pixels[..., :1]
    file = io.BytesIO()
    Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    classes = f' class="{kind}"' if kind else ""
    return (
        f'<img{classes} width="{pixels.shape[1]}" height="{pixels.shape[0]}" alt="{escape(text, quote=True)}" '
        f'src="data:image/png;base64,{data}">'
    )
