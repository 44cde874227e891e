"""The report: a folder with one self-contained page, the figures, the tables as CSV and the comparison as netCDF."""

import base64
import io
import os
from collections.abc import Callable
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from clm5._atomic import write_atomically
from comparisons import figures, figures_sites
from comparisons.compare import save
from comparisons.page import write_page
from comparisons.tables import all_tables

DPI = 120


def report(
    result: xr.Dataset,
    network: xr.DataTree | None = None,
    sampler: xr.DataTree | None = None,
    sites: xr.Dataset | None = None,
    out: str | os.PathLike = "report/",
    *,
    chosen: dict[str, str] | list[str] | None = None,
) -> Path:
    """Write the report of a comparison and return the path of its page.

    `out/index.html` (one file that needs nothing else), `out/figures/*.png`, `out/tables/*.csv`,
    `out/comparison.nc`. The folder is built under another name and renamed when it is complete.

    Args:
        result: of `compare` for the same two files.
        network, sampler: the posterior files, for the figures of single sites; without both of them these are left
            out and the page says so.
        sites: the site data set, may be left out; a `title` or `source` attribute is shown.
        out: a folder that does not exist yet.
        chosen: ids of the sites to draw, or words → ids; by default the sites of most, median and least overlap.

    Raises:
        FileExistsError: `out` exists; an earlier report is not written over.
        ValueError: a chosen site is not among the compared ones.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"report: {out} exists; name another folder or move the earlier report away")
    picked = _chosen(result, chosen)

    def write(work: Path) -> None:
        work.mkdir()
        for folder in ("figures", "tables"):
            (work / folder).mkdir()
        images = {}
        for name, draw in _figures(result, network, sampler, picked).items():
            png = _png(draw())
            (work / "figures" / f"{name}.png").write_bytes(png)
            images[name] = base64.b64encode(png).decode("ascii")
        tables = all_tables(result)
        for name, table in tables.items():
            table.to_csv(work / "tables" / f"{name}.csv", index=False, float_format="%.6g")
        save(result, work / "comparison.nc")
        (work / "index.html").write_text(write_page(result, tables, images, sites, picked), encoding="utf-8")

    write_atomically(out, write)
    return out / "index.html"


def _figures(result, network, sampler, chosen) -> dict[str, Callable[[], Figure]]:
    drawn: dict[str, Callable[[], Figure]] = {
        "correlation_processes": lambda: figures.correlation_panels(result, "process"),
        "overlap_and_information": lambda: figures.overlap_beside_information(result),
        "correlation_parameters": lambda: figures.correlation_panels(result, "parameter"),
        "overlap_sites": lambda: figures.overlap_heat_map(result),
        "map": lambda: figures_sites.site_map(result),
    }
    if network is not None and sampler is not None:
        drawn["posteriors"] = lambda: figures_sites.marginals(network, sampler, result, chosen)
        drawn["soc_profiles"] = lambda: figures_sites.soc_profiles(network, sampler, result, chosen)
    if "parameter_coverage" in result:
        drawn["calibration"] = lambda: figures.calibration_curves(result)
    return drawn


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _chosen(result: xr.Dataset, chosen) -> dict[str, str]:
    if chosen is None:
        return figures_sites.choose_sites(result)
    picked = dict(chosen) if isinstance(chosen, dict) else {str(i): str(i) for i in chosen}
    known = {str(i) for i in result.site.values}
    missing = [i for i in picked.values() if i not in known]
    if missing:
        raise ValueError(f"report: chosen sites {missing} are not among the {len(known)} compared ones")
    return picked
