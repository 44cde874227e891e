"""How well the predicted soil carbon fits what was measured: efficiency, error and bias on the log scale."""

import numpy as np

METRICS = ("nse", "rmse", "bias", "n")


def log_skill(predicted: np.ndarray, observed: np.ndarray) -> dict[str, float]:
    """Skill of point predictions of SOC against observations, natural logarithms of gC m⁻³.

    Args:
        predicted, observed: same shape; NaN where there is no horizon. Pairs with a value that is not positive have
            no logarithm and are left out.

    Returns:
        nse: 1 − Σ(ln p − ln o)²/Σ(ln o − mean ln o)²; 1 perfect, 0 no better than the mean of these observations;
        NaN when they do not vary. rmse: of ln p − ln o (0.2 is about 20 %). bias: mean of ln p − ln o. n: pairs.
    """
    predicted, observed = np.asarray(predicted, float), np.asarray(observed, float)
    usable = (predicted > 0) & (observed > 0) & np.isfinite(predicted) & np.isfinite(observed)
    p, o = np.log(predicted[usable]), np.log(observed[usable])
    if not o.size:
        return {"nse": np.nan, "rmse": np.nan, "bias": np.nan, "n": 0.0}
    error = p - o
    variation = ((o - o.mean()) ** 2).sum()
    nse = 1 - (error**2).sum() / variation if variation > 0 else np.nan
    return {
        "nse": float(nse),
        "rmse": float(np.sqrt((error**2).mean())),
        "bias": float(error.mean()),
        "n": float(o.size),
    }
