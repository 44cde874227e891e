"""How far a statistic of a correct sampler may stray before a test calls it wrong."""

from scipy import stats

FALSE_ALARM = 1e-6  # how often a correct sampler may turn one test red, whatever the seed


def z_limit(comparisons: int) -> float:
    """The |z| that the largest of so many standard normals exceeds with probability FALSE_ALARM (Bonferroni)."""
    return float(stats.norm.isf(FALSE_ALARM / (2 * comparisons)))
