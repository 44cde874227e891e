"""What the explaining commands write: tables, data sets, figures, and a small page."""

import base64
import io
import os
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from clm5._atomic import write_atomically
from comparisons import figures_understanding as figures
from comparisons.style import CSS

DPI = 120
FEW_SITES = 50  # below, importance is noisy
CAPTIONS = {
    "importance": "Left: by how much NSE of ln SOC falls when the covariates of a group are shuffled over the sites, "
    "together; lines: ± one sd of the permutations, which does not hold the chance of which sites were judged. Where "
    "the line reaches 0, or below, nothing is shown to matter. Right: how far that moves each parameter on the unit "
    "cube. Groups that carry the same information stand in for each other, so that each looks unimportant.",
    "dependence": "The parameter that each covariate moves most, the largest effect first, at most twelve of them; all "
    "are in dependence.csv. Line: mean of the network's "
    "answers with the covariate set to one value at all sites. Orange: the middle 80 % of the sites' own curves, each "
    "moved up or down to one common mean; grey: of the curves as they are.",
    "dependence_of_stock": "The simulated stock when the parameters follow the covariate and the forcing stays: mean "
    "over sites, and the middle 80 % of them.",
}
LIMITS = (
    "This says what the network reads, not what soils do: covariates go together, and a covariate may stand in for "
    "another one that was not given.",
    "Shuffling and setting a covariate make combinations that no site has; the network answers there too.",
    "Many parameters hardly show in soil carbon. What moves such a parameter need not matter for the carbon: read the "
    "two sides of the first figure together.",
)


def write_explanation(importance: pd.DataFrame, dependence: xr.Dataset, out: str | os.PathLike) -> Path:
    """Write what `binn.permutation_importance` and `binn.partial_dependence` found; return the path of the page.

    `out/index.html` (one file that needs nothing else), `importance.csv`, `dependence.nc`, `dependence.csv` (long:
    covariate, value, parameter), and the figures as PNG. The folder appears when it is complete.

    Raises FileExistsError where `out` exists.
    """

    def write(work: Path) -> None:
        work.mkdir()
        importance.to_csv(work / "importance.csv", float_format="%.6g")
        dependence.to_netcdf(work / "dependence.nc", engine="h5netcdf")
        long_table(dependence).to_csv(work / "dependence.csv", index=False, float_format="%.6g")
        drawn = {"importance": figures.importance(importance), "dependence": figures.dependence(dependence)}
        if "stock_mean" in dependence:
            drawn["dependence_of_stock"] = figures.dependence_of_stock(dependence)
        images = {name: _save(figure, work / f"{name}.png") for name, figure in drawn.items()}
        (work / "index.html").write_text(_page(importance, dependence, images), encoding="utf-8")

    return _new(out, write) / "index.html"


def few_sites(importance: pd.DataFrame) -> str | None:
    """A sentence where importance was judged by few sites, and None where not."""
    sites, label = importance.attrs["sites"], importance.attrs["label"]
    if sites >= FEW_SITES:
        return None
    more = "" if label == "all" else " --label all judges every site, those of the training too."
    return f"Only {sites} sites were judged: the order of the groups is mostly chance.{more}"


def write_sensitivity(result: xr.Dataset, out: str | os.PathLike) -> Path:
    """Write what `clm5.sobol` found: `sobol.nc`, `sobol.csv` (means over sites) and a figure per scale; return `out`.

    Raises FileExistsError where `out` exists.
    """

    def write(work: Path) -> None:
        work.mkdir()
        result.to_netcdf(work / "sobol.nc", engine="h5netcdf")
        mean_table(result).to_csv(work / "sobol.csv", index=False, float_format="%.6g")
        for scale in result.scale.values:
            _save(figures.sobol(result, str(scale)), work / f"sobol_{scale}.png")

    return _new(out, write)


def long_table(dependence: xr.Dataset) -> pd.DataFrame:
    """One row per covariate, value and parameter; no padding."""
    columns = [f"{what}_{end}" for what in ("unit", "theta") for end in ("mean", "low", "high")]
    table = dependence[columns].to_dataframe().reset_index()
    table = table.dropna(subset="unit_mean")
    return table[["covariate", "value", "meaning", "parameter", *columns]]


def mean_table(result: xr.Dataset) -> pd.DataFrame:
    """Indices as means over sites, one row per scale, depth and parameter, with the published ones."""
    columns = [f"mean_{name}{end}" for name in ("first_order", "total") for end in ("", "_ci")]
    table = result[columns].to_dataframe().reset_index()
    published = result.published_first_order.to_series()
    return table[["scale", "depth", "parameter", *columns]].assign(published=table.parameter.map(published))


def _new(out: str | os.PathLike, write) -> Path:
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists and is not overwritten; name another folder or move it away")
    return write_atomically(out, write)


def _save(figure: Figure, path: Path) -> str:
    """Write a PNG and return it as base64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _page(importance: pd.DataFrame, dependence: xr.Dataset, images: dict[str, str]) -> str:
    attrs = importance.attrs
    first = ", ".join(f"{escape(str(name))} (by {drop:.2f})" for name, drop in importance.nse_drop.head(3).items())
    few = "" if (told := few_sites(importance)) is None else f'<p class="caution">{told}</p>'
    parts = [
        "<h1>What the network reads</h1>",
        f'<p class="verdict">Shuffled over {attrs["sites"]} sites ({escape(attrs["label"])}), these cost most '
        f"skill: {first}, of an NSE of ln SOC of {attrs['nse']:.2f} untouched.</p>",
        few,
        f'<p class="small">{attrs["repeats"]} permutations, seed {attrs["seed"]}; partial dependence over '
        f"{dependence.attrs['sites']} sites, values between quantiles of {escape(dependence.attrs['grid_from'])}.</p>",
    ]
    for name, caption in CAPTIONS.items():
        if name in images:
            parts.append(
                f'<figure><img class="wide" src="data:image/png;base64,{images[name]}" alt="{name.replace("_", " ")}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    parts += ["<h2>Importance</h2>", _table(importance)]
    parts += ["<h2>Limits</h2>", "<ul>", *(f"<li>{sentence}</li>" for sentence in LIMITS), "</ul>"]
    parts.append("<h2>Files</h2><p>importance.csv, dependence.csv, dependence.nc, and the figures as PNG.</p>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>What the network reads</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _table(importance: pd.DataFrame) -> str:
    """Group, skill, change, and the three parameters that move most."""
    parameters = importance.columns[4:]
    rows = []
    for name, row in importance.iterrows():
        most = np.argsort(-row[parameters].to_numpy(float), kind="stable")[:3]
        words = ", ".join(str(parameters[i]) for i in most if row[parameters[i]] > 0)
        sd = "" if np.isnan(row.nse_drop_sd) else f" ± {row.nse_drop_sd:.3f}"
        rows.append(
            f"<tr><td>{escape(str(name))}</td><td>{row.covariates:.0f}</td><td>{row.nse_drop:.3f}{sd}</td>"
            f'<td>{row.change:.3f}</td><td class="words">{words}</td></tr>'
        )
    head = "".join(
        f"<th>{word}</th>"
        for word in ("group", "covariates", "fall of NSE ± sd", "mean |change| of unit parameters", "moves most")
    )
    body = "\n".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
