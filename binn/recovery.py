"""Does training find parameters that are known? Recovery experiments over folds: `recover`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

import clm5
from binn.config import Config
from binn.run import Run
from binn.splits import FOLD_RULES
from binn.training import fit
from binn.truths import TERMS, synthetic
from binn.uncertainty import default_method, draw_units
from clm5.parameters import NAMES

if TYPE_CHECKING:
    import xarray as xr

LEVELS = (0.5, 0.8, 0.9, 0.95)  # of the intervals whose coverage is counted
COVERAGE = tuple(f"coverage_{round(100 * level)}" for level in LEVELS)
LEAST_SIGMA = 0.05  # of the likelihood where labels have no noise: it only weighs, and 0 would divide


@dataclass(frozen=True)
class Recovery:
    """What a recovery experiment found.

    parameters: a row per (fold, parameter), over the test sites of the fold: `r`, `r2`, `bias`, `slope`, `coverage_50`
        … `coverage_95`, `truth_sd`, `found_sd`, all in the unit cube; see `measure`.
    skill: a row per (fold, label) with the columns of `binn.skill_table`, of the deterministic network.
    summary: a row per parameter, the same numbers as `parameters` over the test sites of all folds at once.
    sites: a row per (fold, test site, parameter): `truth` and `found`, unit values. With all folds, each site once.
    wall_time: s, of all trainings, as recorded when they ran.
    """

    parameters: pd.DataFrame
    skill: pd.DataFrame
    summary: pd.DataFrame
    sites: pd.DataFrame
    wall_time: float

    @property
    def r2(self) -> float:
        """Mean R² over the free parameters, over test sites of all folds at once."""
        return float(self.summary.r2.mean())

    def pairs(self) -> pd.DataFrame:
        """A row per fold: mean R² of the parameters (`r2`), and NSE of ln SOC (`nse`), both at its test sites."""
        return pd.DataFrame(
            {
                "r2": self.parameters.groupby("fold").r2.mean(),
                "nse": self.skill[self.skill.label == "test"].set_index("fold").nse,
            }
        ).reset_index()


def recovery_config(noise: float = 0.0, **changes: Any) -> Config:
    """How `recover` trains unless told otherwise: 4 free parameters, spatial folds, the noise's own likelihood.

    Changes are fields of `Config`; `model` keeps its sigma. Chosen on virtual lands 7 and 8, apart from those reported.
    The network reads every number as a curve: most of what shapes a parameter is said by one covariate at a time.
    """
    ours: dict[str, Any] = {
        "model": clm5.ModelOptions(sigma=max(noise, LEAST_SIGMA)),
        "parameters": "4",
        "width": 32,
        "depth": 1,
        "curves": 6,
        "dropout": 0.02,
        "hide_categories": 0.0,
        "gradient": "gauss_newton",
        "learning_rate": 1e-2,
        "weight_decay": 0.5,
        "batch_size": 128,
        "epochs": 400,
        "patience": 400,
        "members": 2,
        "split": "block_kfold",
        "folds": 5,
    }
    return Config(**{**ours, **changes})


def recover(
    sites: "xr.Dataset",
    config: Config | None = None,
    truth: str = "functions",
    noise: float = 0.0,
    *,
    folds: int | None = None,
    only: tuple[int, ...] | None = None,
    covariates: tuple[str, ...] | None = None,
    information: float | None = None,
    terms: int = TERMS,
    of: tuple[str, ...] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = True,
    draws: int = 200,
    progress: bool = True,
) -> Recovery:
    """Put in a truth, train on the carbon that it makes, and see which parameters come back at unseen sites.

    The truth is that of `binn.synthetic`; parameters that are not free are held at the same values in truth and
    network. Every fold of the split is the test set of one training; of its members the one with the lowest validation
    loss is judged, as some starts get stuck. Point values are those of the network without dropout, intervals those of
    its Monte Carlo dropout draws (NaN without dropout), or of the distribution that it answers.

    Args:
        sites: virtual or measured sites with covariates; their carbon is replaced.
        config: how to train, default `recovery_config(noise)`. Its split must be a rule by folds.
        truth, noise, information, terms, of: of the labels, see `binn.synthetic`.
        folds: number of folds, in place of `config.folds`.
        only: folds to run, from 0; default all.
        covariates: what the network may see, names; default all. The truth is made of all of them: leaving some out
            shows what is lost with them.
        seed: of truth, noise, training and draws.
        out: a folder; fold k trains in `out/fold-k`, and a call with the same arguments goes on where one was stopped.
        resume: False refuses folders that hold a run.
        draws: draws of the intervals, 2 or more.
        progress: show epochs on a terminal.

    Raises:
        ValueError: what `binn.synthetic` and `binn.fit` refuse; a split without folds; unknown folds or covariates.
    """
    config = recovery_config(noise) if config is None else config
    config = config if folds is None else replace(config, folds=folds, fold=0)
    if config.split not in FOLD_RULES:
        raise ValueError(f"binn.recover: the split must be by folds, one of {FOLD_RULES}, got {config.split!r}")
    asked = tuple(range(config.folds)) if only is None else tuple(only)
    if not asked or any(fold not in range(config.folds) for fold in asked) or len(set(asked)) < len(asked):
        raise ValueError(f"binn.recover: only names different folds from 0 to {config.folds - 1}, got {asked!r}")
    if draws < 2:
        raise ValueError(f"binn.recover: intervals need 2 draws or more, got {draws!r}")
    made = synthetic(
        sites, truth, noise=noise, parameters=config.parameters, held=config.held, model=config.model,
        information=information, terms=terms, of=of, seed=seed,
    )  # fmt: skip
    seen = _seen(made, covariates)
    parts = []
    for fold in asked:
        folder = None if out is None else Path(out) / f"fold-{fold}"
        run = fit(seen, replace(config, fold=fold), folder, seed=seed, resume=resume, progress=progress)
        parts.append(_judge(run.best_member(), seen, draws, seed))
    return _assemble(config, asked, parts)


def measure(
    truth: Float[np.ndarray, " site"],
    found: Float[np.ndarray, " site"],
    held: Float[np.ndarray, "level site"] | None = None,
) -> dict[str, float]:
    """How well one parameter was found at some sites.

    r: Pearson correlation. r2: 1 − Σ(found − truth)² / Σ(truth − mean truth)²; 0 for the mean of the truth everywhere,
    negative for worse. bias: mean of found − truth. slope: of found against truth, 1 if right, near 0 where the answer
    keeps to the middle. coverage: share of the sites whose interval holds the truth (`held`, 1 or 0), per level.
    NaN where the truth, or for r the answer, does not vary.
    """
    varies, answers = np.ptp(truth) > 0, np.ptp(found) > 0
    away, told = truth - truth.mean(), found - found.mean()
    result = {
        "r": float(away @ told / np.sqrt((away @ away) * (told @ told))) if varies and answers else np.nan,
        "r2": float(1 - np.sum((found - truth) ** 2) / (away @ away)) if varies else np.nan,
        "bias": float(np.mean(found - truth)),
        "slope": float(away @ told / (away @ away)) if varies else np.nan,
    }
    share = np.full(len(LEVELS), np.nan) if held is None else held.mean(axis=1)
    result |= dict(zip(COVERAGE, map(float, share), strict=True))
    return result | {"truth_sd": float(truth.std()), "found_sd": float(found.std()), "sites": float(len(truth))}


def inside(draws: Float[np.ndarray, "draw site"], truth: Float[np.ndarray, " site"]) -> Float[np.ndarray, "level site"]:
    """1 where the central interval of the draws holds the truth, else 0, per level of `LEVELS`.

    Quantiles lie at rank (n + 1) p of n draws: a perfect posterior covers exactly the level.
    """
    tails = [[(1 - level) / 2, (1 + level) / 2] for level in LEVELS]
    low, high = np.moveaxis(np.quantile(draws, tails, axis=0, method="weibull"), 1, 0)
    return ((truth >= low) & (truth <= high)).astype(float)


def _seen(made: "xr.Dataset", covariates: tuple[str, ...] | None) -> "xr.Dataset":
    """The data set without the covariates that the network may not see."""
    if covariates is None:
        return made
    known = clm5.sites.covariate_names(made)
    unknown = [name for name in covariates if name not in known]
    if unknown or not covariates:
        raise ValueError(
            f"binn.recover: covariates names what the network may see, at least one of {', '.join(known)}; "
            f"unknown: {', '.join(unknown) or 'none, but the list is empty'}"
        )
    return made.drop_vars([name for name in known if name not in covariates])


def _judge(run: Run, seen: "xr.Dataset", draws: int, seed: int) -> dict[str, Any]:
    """What one fold's training found at its test sites."""
    chosen = run.labels(seen) == "test"
    test = seen.isel(site=np.flatnonzero(chosen))
    free = [NAMES.index(name) for name in run.config.parameters]
    truth = test.true_unit.values[:, free]
    held = None
    method = default_method(run.config)
    if run.config.dropout > 0 or method != "mc_dropout":
        units = draw_units(run, test, draws, method, seed=seed)[..., free]
        units = units.reshape(-1, *truth.shape)
        held = np.stack([inside(units[..., i], truth[:, i]) for i in range(len(free))])
    return {
        "truth": truth,
        "found": run.predict(test)[:, free],
        "held": held,
        "site": np.asarray(test.site.values, dtype=str),
        "skill": run.skill(seen).rename_axis("label").reset_index(),
        "wall_time": run.wall_time,
    }


def _assemble(config: Config, folds: tuple[int, ...], parts: list[dict[str, Any]]) -> Recovery:
    def rows(part: dict[str, Any]) -> list[dict]:
        held = part["held"]
        return [
            {"parameter": name, **measure(part["truth"][:, i], part["found"][:, i], None if held is None else held[i])}
            for i, name in enumerate(config.parameters)
        ]

    whole: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in ("truth", "found")}
    whole["held"] = None if parts[0]["held"] is None else np.concatenate([part["held"] for part in parts], axis=2)
    per_fold = [{"fold": fold, **row} for fold, part in zip(folds, parts, strict=True) for row in rows(part)]
    skill = [part["skill"].assign(fold=fold) for fold, part in zip(folds, parts, strict=True)]
    sites = [
        pd.DataFrame({"fold": fold, "site": part["site"], "parameter": name, "truth": truth, "found": found})
        for fold, part in zip(folds, parts, strict=True)
        for name, truth, found in zip(config.parameters, part["truth"].T, part["found"].T, strict=True)
    ]
    table = pd.concat(skill, ignore_index=True)
    count = {"sites": int}
    return Recovery(
        parameters=pd.DataFrame(per_fold).astype(count),
        skill=table[["fold", *(name for name in table if name != "fold")]],
        summary=pd.DataFrame(rows(whole)).astype(count),
        sites=pd.concat(sites, ignore_index=True),
        wall_time=float(sum(part["wall_time"] for part in parts)),
    )
