"""The numbers of a comparison as plain tables, for the CSV files and for the page."""

import numpy as np
import pandas as pd
import xarray as xr

from comparisons.cautions import converged
from comparisons.compare import claims, learned
from comparisons.reading import WAYS
from comparisons.verdict import classify

PRIOR = {"parameter": "prior box", "process": "prior"}


def all_tables(result: xr.Dataset) -> dict[str, pd.DataFrame]:
    """Every table by file name; calibration of parameters and processes only where the truth is known."""
    tables = {
        "agreement_parameters": agreement(result, "parameter"),
        "agreement_processes": agreement(result, "process"),
        "averages": averages(result),
        "soc_skill": soil_carbon(result),
        "cost": cost(result),
        "sites": per_site(result),
        "sites_parameters": per_site_and(result, "parameter"),
        "sites_processes": per_site_and(result, "process"),
    }
    for kind, name in (("parameter", "calibration_parameters"), ("process", "calibration_processes")):
        if f"{kind}_coverage" in result:
            tables[name] = calibration(result, kind)
    return tables


def agreement(result: xr.Dataset, kind: str) -> pd.DataFrame:
    """One row per parameter or process: agreement between floor and best, and what each way learned."""

    def mean(name, way=None):
        return (result[f"{kind}_{name}"].sel(way=way) if way else result[f"{kind}_{name}"]).mean("site")

    columns: dict[str, object] = {kind: result[kind].values.astype(str)}
    if kind == "parameter":
        columns["unit"] = result.unit.values.astype(str)
    columns["status"] = classify(result, kind)
    for statistic in ("pearson", "spearman"):
        columns[statistic] = result[f"{kind}_{statistic}"].values
        bounds = result[f"{kind}_{statistic}_interval"].values
        columns[f"{statistic}_lower"], columns[f"{statistic}_upper"] = bounds[:, 0], bounds[:, 1]
    columns |= {
        "pearson_held_out": result[f"{kind}_pearson_held_out"].values,
        "pearson_prior_vs_sampler": result[f"{kind}_pearson_prior"].values,
        "pearson_shuffled_95": result[f"{kind}_pearson_shuffled"].values,
        "overlap": mean("overlap").values,
        "overlap_floor_prior_vs_sampler": mean("overlap_floor").values,
        "overlap_best_sampler_halves": mean("overlap_best").values,
        "overlap_network_halves": mean("overlap_within", "network").values,
        "overlap_prior_vs_network": mean("overlap_prior", "network").values,
        "overlap_skill": result[f"{kind}_overlap_skill"].values,
        "wasserstein": mean("wasserstein").values,
        "wasserstein_best_sampler_halves": mean("wasserstein_within", "sampler").values,
        "wasserstein_prior_vs_sampler": mean("wasserstein_prior", "sampler").values,
    }
    for way in WAYS:
        columns[f"narrower_{way}"] = mean("sd_reduction", way).values
        columns[f"mean_variation_{way}"] = result[f"{kind}_mean_variation"].sel(way=way).values
        columns[f"claims_{way}"] = claims(result, kind).sel(way=way).values
        columns[f"kl_bits_{way}"] = mean("kl", way).values
    if f"{kind}_recovery" in result:
        for way in WAYS:
            columns[f"r_with_truth_{way}"] = result[f"{kind}_recovery"].sel(way=way).values
            columns[f"rmse_{way}"] = result[f"{kind}_rmse"].sel(way=way).values
            columns[f"learned_on_known_truth_{way}"] = learned(result, kind).sel(way=way).values
        columns["rmse_prior_mean"] = result[f"{kind}_rmse_prior"].values
    return pd.DataFrame(columns)


def averages(result: xr.Dataset) -> pd.DataFrame:
    """Mean r over processes with and without the forced one, over all parameters and over those that both claim."""
    columns: dict[str, object] = {"average_over": [str(a).replace("_", " ") for a in result.average.values]}
    for statistic in ("pearson", "spearman"):
        columns[statistic] = result[f"average_{statistic}"].values
        bounds = result[f"average_{statistic}_interval"].values
        columns[f"{statistic}_lower"], columns[f"{statistic}_upper"] = bounds[:, 0], bounds[:, 1]
    columns["pearson_prior_vs_sampler"] = result.average_pearson_prior.values
    return pd.DataFrame(columns)


def calibration(result: xr.Dataset, kind: str) -> pd.DataFrame:
    """One row per parameter and way, and one for the bare prior: coverage at every level with its binomial error."""
    rows = []
    proven = learned(result, kind)
    for name in result[kind].values:
        for way in WAYS:
            one = result.sel({kind: name, "way": way})
            row = {kind: str(name), "way": way, "narrower": float(one[f"{kind}_sd_reduction"].mean())}
            for level in result.level.values:
                at = one.sel(level=level)
                row[f"coverage_{level:.0%}"] = float(at[f"{kind}_coverage"])
                row[f"error_{level:.0%}"] = float(at[f"{kind}_coverage_error"])
            row["width_90%_over_prior"] = float(one[f"{kind}_interval_width"].sel(level=0.9))
            row["r_with_truth"] = float(one[f"{kind}_recovery"])
            row["rmse_over_truth_sd"] = float(one[f"{kind}_recovery_error"])
            row["rmse"] = float(one[f"{kind}_rmse"])
            row["learned_on_known_truth"] = "yes" if bool(proven.sel({"way": way, kind: name})) else "no"
            rows.append(row)
        prior: dict[str, object] = {kind: str(name), "way": PRIOR[kind], "narrower": 0.0}
        for level in result.level.values:
            at = result.sel({kind: name, "level": level})
            prior[f"coverage_{level:.0%}"] = float(at[f"{kind}_coverage_prior"])
            prior[f"error_{level:.0%}"] = float(at[f"{kind}_coverage_error"].sel(way="sampler"))
        rows.append(
            prior
            | {"width_90%_over_prior": 1.0, "r_with_truth": np.nan, "rmse_over_truth_sd": np.nan}
            | {"rmse": float(result[f"{kind}_rmse_prior"].sel({kind: name})), "learned_on_known_truth": ""}
        )
    return pd.DataFrame(rows)


def soil_carbon(result: xr.Dataset) -> pd.DataFrame:
    """Skill and interval coverage of SOC, by way and by what the network was trained on; empty sets left out."""
    rows = []
    for subset in result.subset.values:
        for way in WAYS:
            one = result.sel(subset=subset, way=way)
            skill = {str(m): float(one.soc_skill.sel(metric=m)) for m in result.metric.values}
            if skill["n"] == 0:
                continue
            cover = {f"coverage_{v:.0%}": float(one.soc_coverage.sel(level=v)) for v in result.level.values}
            row = {"sites": str(subset), "n_sites": int(one.soc_sites), "way": way}
            row |= {"scored": str(one.soc_standing.item()), "horizons": int(skill.pop("n"))}
            rows.append(row | skill | cover)
    return pd.DataFrame(rows)


def cost(result: xr.Dataset) -> pd.DataFrame:
    """Wall time, solves and gradients as each file records them, and per site that the file holds."""
    columns: dict[str, object] = {"way": list(WAYS), "method": [str(result.attrs.get(f"{w}_method", "")) for w in WAYS]}
    for name in ("wall_time_s", "n_solves", "n_gradients", "file_sites", "n_chains", "n_draws"):
        columns[name] = result[name].values
    for name in ("wall_time_s", "n_solves", "n_gradients"):
        columns[f"{name}_per_site"] = (result[name] / result.file_sites).values
    columns["n_solves_of_draws"] = [float(result.attrs.get(f"{w}_n_solves_of_draws", np.nan)) for w in WAYS]
    for name in ("ess_per_second", "max_tree_depth_share"):
        columns[name] = result[name].values
    return pd.DataFrame(columns)


def per_site(result: xr.Dataset) -> pd.DataFrame:
    """One row per site: place, use, mean overlap, and the sampler's convergence."""
    sampler = result.sel(way="sampler")
    return pd.DataFrame(
        {
            "site": result.site.values.astype(str),
            "lon": result.lon.values,
            "lat": result.lat.values,
            "split": result.split.values.astype(str),
            "mean_overlap": result.parameter_overlap.mean("parameter").values,
            "mean_wasserstein": result.parameter_wasserstein.mean("parameter").values,
            "sampler_max_rhat": sampler.rhat.max("parameter").values,
            "sampler_min_ess_bulk": sampler.ess_bulk.min("parameter").values,
            "sampler_min_ess_tail": sampler.ess_tail.min("parameter").values,
            "sampler_diverging": sampler.diverging.values,
            "sampler_converged": converged(result),
        }
    )


def per_site_and(result: xr.Dataset, kind: str) -> pd.DataFrame:
    """One row per site and parameter (or process): both posteriors' mean and sd, agreement and what was learned."""
    variables = {name: result[f"{kind}_{name}"] for name in ("overlap", "wasserstein")}
    for way in WAYS:
        for name in ("mean", "sd", "sd_reduction", "kl"):
            variables[f"{name}_{way}"] = result[f"{kind}_{name}"].sel(way=way)
    if f"{kind}_truth" in result:
        variables["truth"] = result[f"{kind}_truth"]
    index = pd.MultiIndex.from_product([result.site.values.astype(str), result[kind].values.astype(str)])
    columns: dict[str, object] = {"site": index.get_level_values(0), kind: index.get_level_values(1)}
    columns |= {name: np.ravel(values.transpose("site", kind).values) for name, values in variables.items()}
    return pd.DataFrame(columns)
