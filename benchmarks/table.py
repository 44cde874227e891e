"""The rows of the benchmark as a table: for a terminal, for markdown, for a spreadsheet."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

TITLES = ("what", "columns", "devices", "type", "asked", "reached", "lowest – highest", "processor", "columns a second")


@dataclass(frozen=True)
class Row:
    """One figure of one setting: the median over rounds or repeats, and their range where there are several."""

    what: str
    value: float
    unit: str  # "µs a column", "times", "s", ...
    columns: int | None = None  # in one call
    asked: str = ""
    lowest: float | None = None
    highest: float | None = None
    processor: float | None = None  # the value again, by processor time of all cores
    device: str = ""
    devices: int = 1
    dtype: str = ""


def significant(value: float) -> str:
    """Three digits, or all of an integer's."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1e}"


def markdown(rows: Sequence[Row], header: Mapping[str, str]) -> str:
    """Header line and table."""
    cells = [TITLES, *map(_cells, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(TITLES))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return " · ".join(f"{name}: {value}" for name, value in header.items()) + "\n\n" + "\n".join(lines) + "\n"


def as_csv(rows: Sequence[Row], header: Mapping[str, str]) -> str:
    """One line a row; what the header says is repeated in each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*(field.name for field in fields(Row)), *header], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) | dict(header) for row in rows)
    return text.getvalue()


def _cells(row: Row) -> tuple[str, ...]:
    spread = (
        "" if row.lowest is None or row.highest is None else f"{significant(row.lowest)} – {significant(row.highest)}"
    )
    return (
        row.what,
        "" if row.columns is None else f"{row.columns:,}",
        f"{row.devices} {row.device}",
        row.dtype,
        row.asked,
        f"{significant(row.value)} {row.unit}".strip(),
        spread,
        "" if row.processor is None else significant(row.processor),
        significant(float(f"{1e6 / row.value:.3g}")) if row.unit == "µs a column" else "",
    )
