"""Draw the tables of the benchmark, as they stand in the README, as a picture: `docs/images/benchmark.svg`.

python benchmarks/plot.py
"""

from __future__ import annotations

import math
import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 760, 190, 60, 74, 12, 14
LEAST, MOST = 0.1, 20.0
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .small { font-size: 11px; fill: #57606a }
.title { font-size: 15px; font-weight: 600 } .a { fill: #12858d } .b { fill: #d08a2e }
.one { stroke: #24292f } .grid { stroke: #57606a; stroke-opacity: .25 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9da7b1 } .a { fill: #39b5bd } .b { fill: #e0a85c }
  .one { stroke: #e6edf3 } .grid { stroke: #9da7b1 }
}
"""


def read_tables(text: str) -> tuple[list[str], dict[str, list[float]]]:
    """Return the names of the tables, and each query's ratios in the order of the tables."""
    start, end = (f"<!-- --8<-- [{edge}:benchmark] -->" for edge in ("start", "end"))
    part = text.partition(start)[2].partition(end)[0]
    names = re.findall(r"^\*\*.*?, (\w+):", part, re.MULTILINE)
    ratios: dict[str, list[float]] = {}
    for query, ratio in re.findall(r"^\| `(\w+)` \|.*\| \*\*([\d.]+)\*\* \|$", part, re.MULTILINE):
        ratios.setdefault(query, []).append(float(ratio))
    return names, ratios


def place(ratio: float) -> float:
    """Return where a ratio is on the axis, which is logarithmic."""
    share = math.log(min(max(ratio, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def draw(names: list[str], ratios: dict[str, list[float]]) -> str:
    """Return the picture as SVG."""
    step = len(names) * BAR + GAP
    bottom = TOP + len(ratios) * step
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 46}" role="img">',
        "<title>How many times as fast as Parquet each query is on NWB files</title>",
        f"<style>{STYLE}</style>",
        '<text class="title" x="12" y="24">How many times as fast as the same rows in Parquet</text>',
    ]
    x = 12
    for style, name in zip("ab", names, strict=True):
        parts.append(f'<rect class="{style}" x="{x}" y="38" width="12" height="12"/>')
        parts.append(f'<text x="{x + 18}" y="49">{escape(name)} NWB</text>')
        x += 40 + 8 * (len(name) + 4)
    for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20):
        at = f"{place(tick):.1f}"
        style = "one" if tick == 1 else "grid"
        parts.append(f'<line class="{style}" x1="{at}" x2="{at}" y1="{TOP - 8}" y2="{bottom}"/>')
        parts.append(f'<text class="small" x="{at}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(
        f'<text class="small" x="{place(1):.1f}" y="{bottom + 36}" text-anchor="middle">as fast</text>'
    )
    parts.append(f'<text class="small" x="{LEFT}" y="{bottom + 36}">slower</text>')
    parts.append(f'<text class="small" x="{WIDTH - RIGHT}" y="{bottom + 36}" text-anchor="end">faster</text>')
    for row, (query, values) in enumerate(ratios.items()):
        y = TOP + row * step
        middle = y + len(values) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 12}" y="{middle:.1f}" text-anchor="end">{escape(query)}</text>')
        for style, value in zip("ab", values, strict=True):
            one, other = sorted((place(1), place(value)))
            parts.append(
                f'<rect class="{style}" x="{one:.1f}" y="{y}" width="{max(other - one, 1):.1f}" '
                f'height="{BAR - 2}"/>'
            )
            beside = place(value) + (5 if value >= 1 else -5)
            anchor = "start" if value >= 1 else "end"
            parts.append(
                f'<text class="small" x="{beside:.1f}" y="{y + 9}" text-anchor="{anchor}">{value:g}</text>'
            )
            y += BAR
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    """Draw the picture."""
    names, ratios = read_tables((ROOT / "README.md").read_text(encoding="utf-8"))
    out = ROOT / "docs" / "images" / "benchmark.svg"
    out.write_text(draw(names, ratios), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
