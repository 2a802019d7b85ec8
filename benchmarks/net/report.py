"""Results as ratios to nft's DNAT in the same round: a table, JSON, a plot."""

import json
import pathlib
import statistics
from html import escape
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.net.measures import SMALLER_IS_BETTER, UNITS
from benchmarks.net.subjects import REFERENCE

Results = dict[str, list[dict[str, float]]]
"""What each subject did, a round after the other."""
_ROW, _LEFT, _WIDTH = 18, 150, 420  # of the plot, in pixels
_SCALE: Final = 2.0  # the ratio at the right edge


def summary(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Return, by measure and subject, median, least, most and the median ratio to the reference."""
    told: dict[str, dict[str, dict[str, float]]] = {}
    for measure in UNITS:
        for name, rounds in results.items():
            values = [one[measure] for one in rounds if measure in one]
            if not values:
                continue
            entry = {"median": statistics.median(values), "min": min(values), "max": max(values)}
            beside = [one.get(measure, 0.0) for one in results.get(REFERENCE, [])]
            if len(beside) >= len(values) and all(beside):
                pairs = zip(values, beside, strict=False)  # the last round may have been cut short
                entry["ratio"] = statistics.median(one / other for one, other in pairs)
            told.setdefault(measure, {})[name] = entry
    return told


def show(results: Results) -> None:
    """Print the table, a subject a row: medians, their spread, and ratios."""
    told = summary(results)
    rounds = max(map(len, results.values()))
    title = f"medians of {rounds}, least and most, ratio to {REFERENCE}"
    table = Table(title=title, box=None, header_style="bold")
    table.add_column("")
    for measure in told:
        table.add_column(measure, justify="right", no_wrap=True)
    for name in results:
        entries = [told[measure].get(name) for measure in told]
        table.add_row(name, *(f"{one['median']:.2f}" if one else "" for one in entries))
        spreads = (f"{one['min']:.2f}-{one['max']:.2f}" if one else "" for one in entries)
        table.add_row("", *spreads, style="dim")
        table.add_row(
            "", *(f"{one['ratio']:.2f} x" if one and "ratio" in one else "" for one in entries)
        )
    console = Console(width=200)
    console.print(table)
    for measure in told:
        console.print(f"{measure:>10}  {UNITS[measure]}", highlight=False)


def write_json(path: str, results: Results, facts: dict[str, Any]) -> None:
    document = {"facts": facts, "units": UNITS, "summary": summary(results), "rounds": results}
    pathlib.Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_plot(path: str, results: Results) -> None:
    """Write bars of the ratios as SVG; the line is the reference."""
    told = summary(results)
    rows: list[str] = []
    height = 10
    for measure, unit in UNITS.items():
        entries = {n: one for n, one in told.get(measure, {}).items() if "ratio" in one}
        if not entries:
            continue
        better = "less is better" if measure in SMALLER_IS_BETTER else "more is better"
        height += _ROW + 6
        rows.append(_text(10, height, f"{measure}: {unit} ({better})", "bold"))
        for name, one in entries.items():
            height += _ROW
            width = min(one["ratio"], _SCALE) / _SCALE * _WIDTH
            colour = "#888" if name == REFERENCE else "#2a6" if name.startswith("pylvs") else "#68a"
            rows.append(_text(10, height, name))
            place = f'x="{_LEFT}" y="{height - 11}" width="{width:.0f}" height="13"'
            rows.append(f'<rect {place} fill="{colour}"/>')
            value = f"{one['ratio']:.2f} x   {one['median']:.3g}"
            rows.append(_text(int(_LEFT + width + 6), height, value))
    middle = _LEFT + _WIDTH / _SCALE
    line = f'<line x1="{middle}" x2="{middle}" y1="10" y2="{height + 8}" stroke="#444"/>'
    size = f'width="{_LEFT + _WIDTH + 160}" height="{height + 20}"'
    body = "\n".join(rows)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    )
    text = f'{head}\n<rect width="100%" height="100%" fill="white"/>\n{body}\n{line}\n</svg>\n'
    pathlib.Path(path).write_text(text, encoding="utf-8")


def _text(x: int, y: int, text: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}">{escape(text)}</text>'
