"""Numbers as the pages show them; – where there is none."""

import numpy as np


def duration(seconds: float) -> str:
    """Seconds in words that fit their size."""
    if not np.isfinite(seconds):
        return "–"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def count(number: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f") if np.isfinite(number) else "–"


def significant(value: float) -> str:
    """A number to three significant digits."""
    return f"{value:.3g}" if np.isfinite(value) else "–"


def percent(share: float) -> str:
    """A share as a whole percentage."""
    return f"{round(100 * share) + 0:d} %" if np.isfinite(share) else "–"


def two(value: float) -> str:
    """A number to two decimals."""
    return f"{round(value, 2) + 0.0:.2f}" if np.isfinite(value) else "–"


def three(value: float) -> str:
    """A number to three decimals."""
    return f"{value:.3f}" if np.isfinite(value) else "–"
