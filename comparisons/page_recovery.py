"""The page of a recovery experiment: what came back, what did not, and how little the carbon told of it."""

import base64
import io
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from binn.recovery import Recovery
from clm5._atomic import write_atomically
from comparisons import figures_recovery
from comparisons.style import CSS

DPI = 120
TABLES = ("parameters", "skill", "summary", "sites")
ROUNDED = "%.6g"
CAPTIONS = {
    "true_against_found": "Truth and answer in the unit cube, a point per test site over all folds. Dashed: equality. "
    "Dotted: the mean of the truth, whose R² is 0.",
    "skill_against_parameters": "A point per fold. Experiments side by side at one skill for carbon and at different "
    "heights are networks whose carbon is equally good and "
    "whose parameters are not; binn recover --beside FOLDER adds one. Hollow: below −1.",
}
READING = (
    "<b>How to read the table.</b> All numbers are over the test sites of all folds, in the unit cube. <b>r</b>: "
    "correlation of truth and answer. <b>r2</b>: 1 for a perfect answer, 0 for the mean of the truth at every site, "
    "below 0 for worse. <b>bias</b>: mean of answer − truth. <b>slope</b>: of answer against truth, 1 if right, near 0 "
    "where the answer keeps to the middle. <b>coverage 90</b>: share of sites whose 90 % interval holds it: "
    "0.90 if intervals are right, less if they are too narrow. <b>truth sd</b>, <b>found sd</b>: spread over sites."
)
SKILL = (
    "The network without dropout on soil carbon, per fold: <b>nse</b> and <b>bias</b> (mean error) of ln SOC over the "
    "horizons, and the median <b>distance</b> to the nearest training site in km."
)
LIMITS = (
    "The truth is made by the same column that is trained through: a real soil differs from it, and recovery there is "
    "worse.",
    "R² is against the mean of the truth at the judged sites; a parameter that hardly varies there has a low R² at a "
    "small error.",
    "Intervals are those of Monte Carlo dropout: the spread of the network at the rate chosen, not a posterior.",
)


def write_recovery(
    recovery: Recovery, out: Path, told: Mapping[str, str], beside: Mapping[str, pd.DataFrame] | None = None
) -> Path:
    """Write the tables (CSV), figures (PNG) and the page of an experiment into `out`; returns the path of the page.

    Args:
        recovery: of `binn.recover`.
        out: a folder; files of an earlier call are replaced, the folders of the folds stay.
        told: what to say of the experiment, name → value; "experiment" names it in the figure.
        beside: other experiments for the figure of skill against parameters, name → `Recovery.pairs()`.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        text = getattr(recovery, name).to_csv(index=False, float_format=ROUNDED)
        _write(out / f"{name}.csv", text.encode("utf-8"))
    pairs = {told.get("experiment", "this experiment"): recovery.pairs(), **(beside or {})}
    drawn = {
        "true_against_found": figures_recovery.true_against_found(recovery.sites, recovery.summary),
        "skill_against_parameters": figures_recovery.skill_against_parameters(pairs),
    }
    images = {}
    for name, figure in drawn.items():
        png = _png(figure)
        _write(out / f"{name}.png", png)
        images[name] = base64.b64encode(png).decode("ascii")
    _write(out / "experiment.json", (json.dumps(dict(told), indent=1) + "\n").encode("utf-8"))
    return _write(out / "index.html", _page(recovery, told, images).encode("utf-8"))


def read_pairs(folder: Path) -> tuple[str, pd.DataFrame]:
    """Name and `Recovery.pairs()` of an experiment that `write_recovery` left in a folder."""
    missing = [name for name in ("parameters.csv", "skill.csv") if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(f"{folder} holds no finished recovery experiment: it lacks {', '.join(missing)}")
    parameters, skill = (pd.read_csv(folder / f"{name}.csv") for name in ("parameters", "skill"))
    told = folder / "experiment.json"
    name = json.loads(told.read_text(encoding="utf-8"))["experiment"] if told.exists() else folder.name
    return name, Recovery(parameters, skill, pd.DataFrame(), pd.DataFrame(), 0.0).pairs()


def headline(recovery: Recovery) -> str:
    """What came back and what did not, and whether intervals hold what they promise."""
    r2 = recovery.summary.set_index("parameter").r2
    found = [str(name) for name in r2.index[r2 >= figures_recovery.FOUND]]
    lost = [str(name) for name in r2.index[~(r2 > figures_recovery.LOST)]]
    nse = recovery.pairs().nse
    held = float(recovery.summary.coverage_90.mean())
    spread = "" if held != held else f" Intervals that promise 90 % hold the truth at {100 * held:.0f} % of the sites."
    return (
        f"Mean R² of {len(r2)} free parameters at sites held out: {_number(recovery.r2)}; the carbon there is met with "
        f"an NSE of {_number(nse.min(), 3)} to {_number(nse.max(), 3)} over {len(nse)} folds. R² of 0.5 or more: "
        f"{', '.join(found) or 'none'}. No better than the mean of the truth: {', '.join(lost) or 'none'}.{spread}"
    )


def _page(recovery: Recovery, told: Mapping[str, str], images: Mapping[str, str]) -> str:
    summary = _rounded(recovery.summary.sort_values("r2", ascending=False))
    skill = _rounded(recovery.skill, 3)
    parts = [
        "<h1>Do known parameters come back?</h1>",
        f'<p class="verdict">{escape(headline(recovery))}</p>',
        _section("What was asked", _table(pd.DataFrame(list(told.items()), columns=["", "choice"]))),
        _section("Parameter by parameter",
                 f"<p>{READING}</p>" + _table(summary) + _figure(images, "true_against_found")),
        _section("Skill for carbon beside skill for parameters",
                 _figure(images, "skill_against_parameters") + f"<p>{SKILL}</p>" + _table(skill)),
        _section("Limits", "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in LIMITS) + "</ul>"),
        _section("Files", "<p>parameters.csv (per fold), summary.csv (all folds), skill.csv (soil carbon), sites.csv "
                 "(truth and answer of every test site); fold-k/ holds the run of a fold.</p>"),
    ]  # fmt: skip
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Recovery of known parameters</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _table(frame: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{escape(str(name)).replace("_", " ")}</th>' for name in frame.columns)
    rows = ["".join(f"<td>{escape(str(v))}</td>" for v in values) for values in frame.itertuples(index=False)]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(images: Mapping[str, str], name: str) -> str:
    caption = escape(CAPTIONS[name])
    picture = f'<img alt="{caption}" src="data:image/png;base64,{images[name]}">'
    return f'<figure><div class="scroll">{picture}</div><figcaption>{caption}</figcaption></figure>'


def _rounded(frame: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    return frame.map(lambda value: _number(value, digits) if isinstance(value, float) else value)


def _number(value: float, digits: int = 2) -> str:
    return "–" if value != value else f"{value:.{digits}f}".replace("-", "−")


def _write(path: Path, content: bytes) -> Path:
    return write_atomically(path, lambda part: part.write_bytes(content))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
