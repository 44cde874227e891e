"""The page of the report, from its verdict at the top to its limits at the bottom."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
import xarray as xr

from comparisons import captions, methods, verdict
from comparisons.cautions import unmixed
from comparisons.compare import cautions_of, claims
from comparisons.formats import count, duration, percent, significant, three, two
from comparisons.reading import UNSEEN, WAYS
from comparisons.style import CSS

OPTIONS = ("method", "bounds", "rules", "operator", "error", "sigma", "seed", "sites_fingerprint")
STATUS_CLASS = {verdict.AGREE: "good", verdict.ORDER: "some", verdict.DISAGREE: "bad"}


def write_page(
    result: xr.Dataset,
    tables: Mapping[str, pd.DataFrame],
    images: Mapping[str, str],
    sites: xr.Dataset | None,
    chosen: Mapping[str, str],
) -> str:
    """The whole page as one string that needs nothing from outside.

    Args:
        result: of `compare`.
        tables: of `tables.all_tables`.
        images: figure name → PNG as base64.
        sites: the site data set, for its title and source, or None.
        chosen: word → id of the sites drawn one by one.
    """
    stop = unmixed(result)
    others = [sentence for sentence in cautions_of(result) if sentence not in stop]
    parts = [f'<p class="stop" role="alert">{escape(sentence)}</p>' for sentence in stop]
    parts.append("<h1>Network and sampler on the same soil columns</h1>")
    parts.append(f'<p class="verdict">{escape(verdict.headline(result))}</p>')
    parts.append(f"<p>{escape(verdict.truth_sentence(result))}</p>" if verdict.truth_sentence(result) else "")
    parts.append(f'<p class="small">{escape(verdict.thresholds(result))}</p>')
    parts += [f'<p class="caution">{escape(sentence)}</p>' for sentence in others]
    parts.append(_section("Can the numbers be trusted?", _chains(result)))
    parts.append(_section("What was compared", _options(result, sites)))
    parts.append(_section("How far they agree", _agreement(result, tables, images)))
    if "calibration_parameters" in tables:
        parts.append(_section("Is either right? The known truth", _calibration(tables, images)))
    parts.append(_section("Soil carbon", _soil_carbon(result, tables, images)))
    parts.append(_section("What it cost", _cost(result, tables["cost"])))
    parts.append(_section("Site by site", _sites(images, chosen)))
    limit = methods.words(methods.attributes(result)).limit
    parts.append(_section("Limits", _list([*captions.LIMITS[:2], limit, *captions.LIMITS[2:]])))
    parts.append(_section("Files", f"<p>{captions.FILES}</p>"))
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Network and sampler compared</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _chains(result: xr.Dataset) -> str:
    text = [f"<p><b>Sampler.</b> {escape(verdict.chains_sentence(result))}</p>"]
    share = result.between_chain_share.sel(way="network")
    attrs = methods.attributes(result)
    if methods.independent(attrs):
        sentence = methods.describe(attrs, int(result.n_chains.sel(way="network")))
        if share.notnull().any():
            rest = methods.words(attrs).within
            sentence += f" Here {percent(float(share.mean()))} of the spread lies between members, the rest is {rest}."
        text.append(f"<p><b>Network.</b> {escape(sentence)}</p>")
    return "".join(text)


def _options(result: xr.Dataset, sites: xr.Dataset | None) -> str:
    def of(key: str) -> list[str]:
        return [_short(key, result.attrs.get(f"{way}_{key}", "–")) for way in WAYS]

    rows = [[key.replace("_", " "), *of(key)] for key in OPTIONS]
    counts = [_drawn(result, way) for way in WAYS]
    rows.append(["draws per site", *counts])
    keys = dict.fromkeys(
        key.removeprefix(f"{way}_") for way in WAYS for key in map(str, result.attrs) if key.startswith(f"{way}_")
    )
    everything = pd.DataFrame([[key, *of(key)] for key in keys if key not in OPTIONS], columns=["", *WAYS])
    described = {} if sites is None else sites.attrs
    named = [f"{key.title()}: {described[key]}." for key in ("title", "source") if key in described]
    held = int(result.split.astype(str).isin(UNSEEN).sum())
    about = f"{result.sizes['site']} sites that both files hold, {held} of them held out from the network's training."
    return (
        f"<p>{escape(' '.join([about, *named]))}</p>"
        + table(pd.DataFrame(rows, columns=["", *WAYS]))
        + f"<details><summary>Everything else that the files record</summary>{table(everything)}</details>"
    )


def _drawn(result: xr.Dataset, way: str) -> str:
    """How many draws, of what."""
    draws, chains = (int(result[name].sel(way=way)) for name in ("n_draws", "n_chains"))
    attrs = methods.attributes(result, way)
    if not methods.independent(attrs):
        return f"{draws} from {chains} chain{'s' * (chains > 1)}"
    return f"{draws} {methods.words(attrs).draws}" + f" from {chains} networks" * (chains > 1)


def _agreement(result: xr.Dataset, tables, images) -> str:
    averages = tables["averages"].copy()
    both = int(claims(result).all("way").sum())
    averages["average_over"] = [captions.AVERAGES[name].format(both=both) for name in averages["average_over"]]
    out = [f"<p>{captions.AVERAGES_NOTE}</p>"]
    short = pd.DataFrame(
        {
            "mean over": averages["average_over"],
            "Pearson r": averages["pearson"].map(two),
            "95 % interval": _interval(averages, "pearson"),
            "Spearman r": averages["spearman"].map(two),
            "Pearson r of the prior": averages["pearson_prior_vs_sampler"].map(two),
        }
    )
    out.append(table(short))
    out.append(f"<p>{captions.READING}</p>")
    for kind, heading in (("process", "The six processes"), ("parameter", "The 21 parameters")):
        plural = {"process": "processes", "parameter": "parameters"}[kind]
        full = _agreement_table(tables[f"agreement_{plural}"], kind, int(result.n_held_out))
        out.append(f"<h3>{heading}</h3>" + table(full))
        out.append(figure(images, f"correlation_{plural}", wide=kind == "parameter"))
        if kind == "process":
            out.append(f'<p class="small">{captions.PROCESSES}</p>')
    out.append(figure(images, "overlap_and_information"))
    return "".join(out)


def _agreement_table(full: pd.DataFrame, kind: str, n_held_out: int) -> pd.DataFrame:
    """The table of the page: how narrow each way is right beside r and overlap, the narrowest first."""
    full = full.iloc[np.argsort(-full[[f"narrower_{way}" for way in WAYS]].max(axis=1).fillna(-9), kind="stable")]
    columns: dict[str, Sequence] = {kind: full[kind], "in short": full["status"]}
    for way in WAYS:
        columns[f"narrower than the prior, {way}"] = full[f"narrower_{way}"].map(percent)
        columns[f"means vary, {way}"] = full[f"mean_variation_{way}"].map(two)
    columns |= {"r": full["pearson"].map(two), "95 % interval": _interval(full, "pearson")}
    if kind == "process":
        columns["r of the prior"] = full["pearson_prior_vs_sampler"].map(two)
    columns |= {
        "overlap skill": full["overlap_skill"].map(two),
        "overlap": full["overlap"].map(two),
        "floor: prior": full["overlap_floor_prior_vs_sampler"].map(two),
        "best: itself": full["overlap_best_sampler_halves"].map(two),
        "distance": full["wasserstein"].map(three),
        "best distance": full["wasserstein_best_sampler_halves"].map(three),
        "prior's distance": full["wasserstein_prior_vs_sampler"].map(three),
        "Spearman": full["spearman"].map(two),
    }
    if np.isfinite(full["pearson_held_out"]).any():
        columns[f"r, held-out sites (n = {n_held_out})"] = full["pearson_held_out"].map(two)
    columns["|r|, shuffled"] = full["pearson_shuffled_95"].map(two)
    for way in WAYS:
        columns[f"bits, {way}"] = full[f"kl_bits_{way}"].map(two)
    return pd.DataFrame(columns)


def _calibration(tables, images) -> str:
    out = [f"<p>{captions.CALIBRATION}</p>"]
    for kind, plural in (("parameter", "parameters"), ("process", "processes")):
        if f"calibration_{plural}" not in tables:
            continue
        full = tables[f"calibration_{plural}"]
        best = full.groupby(kind)["narrower"].transform("max").fillna(-9)
        full = full.iloc[np.argsort(-best, kind="stable")]
        short = pd.DataFrame({kind: full[kind], "way": full["way"], "narrower": full["narrower"].map(percent)})
        for column in full.columns[full.columns.str.startswith("coverage_")]:
            level = column.removeprefix("coverage_")
            error = full[f"error_{level}"]
            short[f"{level[:-1]} % holds"] = [
                f"{percent(c)} ± {100 * e:.0f}" if np.isfinite(c) else "–"
                for c, e in zip(full[column], error, strict=True)
            ]
        short["width 90 %, of prior"] = full["width_90%_over_prior"].map(percent)
        short["RMSE of the mean"] = full["rmse"].map(two)
        short["learned, on known truth"] = full["learned_on_known_truth"].replace("", "–")
        short["r with truth"] = full["r_with_truth"].map(two)
        out.append(f"<details{' open' if kind == 'parameter' else ''}><summary>Coverage per {kind}</summary>")
        out.append(table(short) + "</details>")
    return "".join(out) + figure(images, "calibration")


def _soil_carbon(result: xr.Dataset, tables, images) -> str:
    full = tables["soc_skill"]
    short = full[["sites", "n_sites", "way", "scored", "horizons"]].rename(columns={"n_sites": "number of sites"})
    for name, label in (("nse", "NSE"), ("rmse", "RMSE of ln"), ("bias", "bias of ln")):
        short[label] = full[name].map(two)
    for column in full.columns[full.columns.str.startswith("coverage_")]:
        short[f"{column.removeprefix('coverage_')[:-1]} % holds"] = full[column].map(percent)
    given = captions.SOC_PROFILE if methods.reads_profile(methods.attributes(result)) else ""
    return f"<p>{captions.SOC}{given}</p>" + table(short) + figure(images, "soc_profiles")


def _cost(result: xr.Dataset, costs: pd.DataFrame) -> str:
    rows = []
    for name, label, shown in (
        ("file_sites", "sites that the file holds and paid for", count),
        ("wall_time_s", "wall time", duration),
        ("n_solves", "model solves", count),
        ("n_gradients", "model gradients", count),
        ("wall_time_s_per_site", "wall time per site", duration),
        ("n_solves_per_site", "model solves per site", count),
        ("n_gradients_per_site", "model gradients per site", count),
        ("n_solves_of_draws", "columns solved to carry draws to carbon", count),
        ("ess_per_second", "effective draws per second of a site, slowest parameter", significant),
        ("max_tree_depth_share", "draws at the largest tree depth", percent),
    ):
        first, second = (float(value) for value in costs[name])
        if not (np.isfinite(first) or np.isfinite(second)):
            continue
        ratio = f"{second / first:.3g}" if first > 0 and second > 0 else "–"
        rows.append([label, shown(first), shown(second), ratio])
    frame = pd.DataFrame(rows, columns=["", *WAYS, "sampler / network"])
    carried = float(costs["n_solves_of_draws"].iloc[0])
    draws = captions.DRAWS_APART if np.isfinite(carried) else captions.DRAWS_NOT_COUNTED
    text = captions.COST.format(sites=result.sizes["site"])
    return f"<p>{escape(text)} {escape(draws)}</p>" + table(frame)


def _sites(images, chosen: Mapping[str, str]) -> str:
    which = "; ".join(f"{word}: {site}" if word != site else site for word, site in chosen.items())
    if "posteriors" in images:
        start = f"<p>Drawn one by one: {escape(which)}.</p>"
    else:
        start = f"<p>{captions.WITHOUT_FILES}</p>"
    return start + figure(images, "posteriors", wide=True) + figure(images, "map") + figure(images, "overlap_sites")


def table(frame: pd.DataFrame) -> str:
    """A table that scrolls sideways by itself; statuses carry their colour class beside their word."""
    wordy = [" class=words" if str(value)[:1].isalpha() else "" for value in frame.iloc[0]] if len(frame) else []
    wordy = wordy or [""] * frame.shape[1]
    head = "".join(f'<th scope="col"{w}>{escape(str(c))}</th>' for c, w in zip(frame.columns, wordy, strict=True))
    rows = []
    for values in frame.itertuples(index=False):
        texts = [str(value) for value in values]
        trivial = ' class="trivial"' if verdict.NEITHER in texts or verdict.GIVEN in texts else ""
        cells = "".join(
            f"<td class={STATUS_CLASS[text]}>{text}</td>" if text in STATUS_CLASS else f"<td{w}>{escape(text)}</td>"
            for text, w in zip(texts, wordy, strict=True)
        )
        rows.append(f"<tr{trivial}>{cells}</tr>")
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll" tabindex="0"><table>{body}</table></div>'


def figure(images: Mapping[str, str], name: str, *, wide: bool = False) -> str:
    """A picture in the page with its caption; wide ones scroll on a narrow screen."""
    if name not in images:
        return ""  # made without the posterior files
    caption = captions.FIGURES[name]
    kind = ' class="wide"' if wide else ""
    picture = f'<img{kind} alt="{escape(caption)}" src="data:image/png;base64,{images[name]}">'
    return f'<figure><div class="scroll">{picture}</div><figcaption>{caption}</figcaption></figure>'


def _interval(frame: pd.DataFrame, name: str) -> list[str]:
    pairs = zip(frame[f"{name}_lower"], frame[f"{name}_upper"], strict=True)
    return [f"{two(a)} to {two(b)}" if np.isfinite(a) else "–" for a, b in pairs]


def _short(key: str, value: object) -> str:
    text = str(value)
    if key.endswith("fingerprint"):
        return text[:12] + "…" * (len(text) > 12)
    return text if len(text) <= 120 else text[:117] + "…"


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{sentence}</li>" for sentence in sentences) + "</ul>"
