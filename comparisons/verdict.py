"""The comparison in words: a status per parameter, one sentence for the page's head, and the thresholds behind both."""

import numpy as np
import xarray as xr

from comparisons.cautions import converged
from comparisons.compare import learned
from comparisons.convergence import ESS_LIMIT, ESS_STRICT, RHAT_LIMIT, RHAT_STRICT
from comparisons.reading import FORCED, WAYS

R_AGREE, OVERLAP_AGREE = 0.7, 0.7
LARGELY, PARTLY = 0.8, 0.4  # share of the parameters both learned on which they agree
AGREE, ORDER, DISAGREE = "agree", "same order, other values", "disagree"
NEITHER, ONLY, GIVEN = "neither learned", "only the {} learned", "given (forcing)"


def classify(result: xr.Dataset, kind: str = "parameter") -> list[str]:
    """A status for every parameter or process.

    Where both ways learned: `AGREE` with r and mean overlap at their thresholds, `ORDER` with r alone, else `DISAGREE`.
    Otherwise who learned, and `GIVEN` for plant carbon input.
    """
    knows = learned(result, kind)
    found = []
    for name in result[kind].values:
        one = result.sel({kind: name})
        who = [way for way in WAYS if bool(knows.sel({"way": way, kind: name}))]
        r, shared = float(one[f"{kind}_pearson"]), float(one[f"{kind}_overlap"].mean())
        if kind == "process" and name == FORCED:
            found.append(GIVEN)
        elif not who:
            found.append(NEITHER)
        elif len(who) == 1:
            found.append(ONLY.format(who[0]))
        elif r >= R_AGREE:
            found.append(AGREE if shared >= OVERLAP_AGREE else ORDER)
        else:
            found.append(DISAGREE)
    return found


def headline(result: xr.Dataset) -> str:
    """One plain sentence or two, made from the numbers."""
    status = classify(result)
    counts = {word: status.count(word) for word in (AGREE, ORDER, DISAGREE)}
    both, n, sites = sum(counts.values()), len(status), result.sizes["site"]
    where = f"Over {sites} site{'s' * (sites != 1)}, network and sampler"
    if both == 0:
        first = f"{where} cannot be said to agree or to disagree: there is not one parameter that both learned about."
    else:
        share = counts[AGREE] / both
        ordered = (counts[AGREE] + counts[ORDER]) / both
        how = "largely agree" if share >= LARGELY else "agree in part" if share >= PARTLY else "mostly disagree"
        if share < PARTLY and ordered >= LARGELY:
            how = "order the sites alike, yet differ in value or certainty,"
        details = [f"they agree on {counts[AGREE] or 'none'}"]
        if counts[ORDER]:
            details.append(f"put the sites in the same order but differ in value or certainty on {counts[ORDER]}")
        if counts[DISAGREE]:
            details.append(f"disagree on {counts[DISAGREE]}")
        said = details[0] if len(details) == 1 else ", ".join(details[:-1]) + " and " + details[-1]
        first = f"{where} {how} where both learned something: of {both} such parameters (of {n}), {said}."
    rest = "".join(
        f" Only the {way} learned about {status.count(ONLY.format(way))}." for way in WAYS if ONLY.format(way) in status
    )
    if NEITHER in status:
        rest += f" About {status.count(NEITHER)} neither did, so agreement there is trivial."
    r = result.average_pearson
    without, with_ = (float(r.sel(average=a)) for a in ("processes_without_carbon_input", "processes"))
    quoted = float(result.average_pearson_prior.sel(average="processes_without_carbon_input"))
    floor = f"; quoting the prior would score {quoted:.2f}" if np.isfinite(quoted) else ""
    return (
        f"{first}{rest} Mean r over the processes is {without:.2f} without plant carbon input "
        f"({with_:.2f} with it, but that one is 1 by construction){floor}."
    )


def truth_sentence(result: xr.Dataset, level: float = 0.9) -> str:
    """How often each way's intervals hold the known truth, over the parameters it says it learned; "" where unknown."""
    if "parameter_coverage" not in result:
        return ""
    parts = []
    for way in WAYS:
        own = learned(result).sel(way=way).values
        if own.any():
            share = float(result.parameter_coverage.sel(way=way, level=level).values[own].mean())
            parts.append(f"the {way}'s at {_percent(share)} of them ({own.sum()} parameters)")
    if not parts:
        return ""
    return (
        f"The truth is known at these sites. Intervals that promise {_percent(level)} hold it, over the "
        f"parameters that a way says it learned: {', '.join(parts)}."
    )


def chains_sentence(result: xr.Dataset) -> str:
    """What R-hat and ESS say of the sampler."""
    sampler = result.sel(way="sampler")
    if sampler.rhat.isnull().all():
        return "R-hat and effective sample size of the sampler could not be computed."
    strict = converged(result, RHAT_STRICT, ESS_STRICT)
    diverging = float(sampler.diverging.mean()) if sampler.diverging.notnull().any() else np.nan
    text = (
        f"Largest R-hat {float(sampler.rhat.max()):.3f}, fewest effective draws {float(sampler.ess_bulk.min()):.0f}, "
        f"over all sites and parameters. {converged(result).sum()} of {strict.size} sites pass the limits used here "
        f"(R-hat {RHAT_LIMIT}, {ESS_LIMIT} effective draws), {strict.sum()} the strict ones advised for publication "
        f"({RHAT_STRICT} and {ESS_STRICT})."
    )
    return text + (f" Divergent transitions: {100 * diverging:.2g} %." if np.isfinite(diverging) else "")


def thresholds(result: xr.Dataset) -> str:
    """What the words mean."""
    gain = float(result.attrs["gain_threshold"])
    return (
        f"Learned: the posterior's standard deviation is on average over sites at least {_percent(gain)} below the "
        f"prior's. It is what a way claims; only coverage of a known truth shows whether the claim holds. Agree: both "
        f"learned, r over sites at least {R_AGREE} and mean overlap at least {OVERLAP_AGREE}. Largely: on at least "
        f"{_percent(LARGELY)} of the parameters that both learned; in part: on at least {_percent(PARTLY)}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
