"""The benchmarks run, and say everything that they are there to say."""

import csv
import math
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.machine import cores
from benchmarks.table import Row, markdown

TIMED = {
    "dense solve",
    "floor: monthly modifiers and means",
    "floor: 240 modifiers written out",
    "forward: 20-layer SOC",
    "forward: full state",
    "value and gradient, 21 parameters",
}
RATIOS = {
    "dense / forward": "≥ 200",
    "forward / floor (means)": "≤ 2.5",
    "forward / floor (written out)": "≤ 2.5",
    "gradient / forward": "≤ 3.5",
    "forward: dearest size / cheapest": "flat",
}
MACHINE = {
    "memory bandwidth",
    "memory floor / forward",
    "memory floor / gradient",
    "trace and compile: forward",
    "trace and compile: gradient",
    "working memory: forward",
    "working memory: gradient",
    "peak memory of the process",
}
NONE = {
    "recompilations: other values, equal shapes",
    "columns with a value that is not finite: forward",
    "columns with a value that is not finite: gradient",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict[str, str]]:
    """Of the smallest run there is, on two devices (two cores, if there are two)."""
    out: Path = tmp_path_factory.mktemp("benchmarks") / "table.csv"
    before = cores()
    assert main(["--quick", "--devices", "2", "--out", str(out)]) == 0
    assert cores() == before  # only the measuring process was kept to some of them
    with out.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_all_rows_are_there_and_hold_positive_numbers(rows):
    found = {row["what"] for row in rows}
    assert not (TIMED | RATIOS.keys() | MACHINE | NONE) - found
    for row in rows:
        value = float(row["value"])
        assert math.isfinite(value), row
        assert value > 0 or row["what"] in NONE, row
        assert row["what"] not in TIMED | RATIOS.keys() or float(row["processor"]) > 0, row


@pytest.mark.slow
def test_what_is_asked_stands_beside_what_is_reached(rows):
    for what, asked in RATIOS.items():
        assert {row["asked"] for row in rows if row["what"] == what} == {asked}


@pytest.mark.slow
def test_nothing_recompiles_and_every_column_is_finite_in_float64(rows):
    assert {row["dtype"] for row in rows} == {"float64"}
    for what in NONE:
        assert [(row["value"], row["asked"]) for row in rows if row["what"] == what] in ([("0", "0")], [("0.0", "0")])


@pytest.mark.slow
def test_a_figure_carries_its_machine(rows):
    assert all(row["machine"] and row["jax"] and row["date"] and row["devices"] == "2" for row in rows)


def test_the_table_says_how_many_columns_a_second():
    row = Row("forward", 2.0, "µs a column", 4096, lowest=1.5, highest=2.5, device="gpu", dtype="float32")
    *_, line = markdown([row], {"machine": "one"}).splitlines()
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "forward", "4,096", "1 gpu", "float32", "", "2 µs a column", "1.5 – 2.5", "", "500,000",
    ]  # fmt: skip
