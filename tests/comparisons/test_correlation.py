"""Correlations equal scipy's, their intervals hold the truth as often as they say, and shuffled sites give none."""

import numpy as np
import pytest
from scipy import stats

from comparisons.correlation import bootstrap, interval, pearson, shuffled, spearman

RNG = np.random.default_rng(22)


def correlated(n, r, columns):
    x = RNG.standard_normal((n, columns))
    return x, r * x + np.sqrt(1 - r**2) * RNG.standard_normal((n, columns))


def test_equal_to_scipy_column_by_column():
    x, y = correlated(30, 0.6, 8)
    x[:5, 0] = x[0, 0]  # ties
    np.testing.assert_allclose(pearson(x, y), [stats.pearsonr(a, b)[0] for a, b in zip(x.T, y.T, strict=True)])
    np.testing.assert_allclose(spearman(x, y), [stats.spearmanr(a, b)[0] for a, b in zip(x.T, y.T, strict=True)])


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_r_ignores_bias_and_scale(scale):
    x = RNG.standard_normal((20, 1))
    assert pearson(x, 5 * scale + scale * x)[0] == pytest.approx(1)
    assert pearson(x, -scale * x)[0] == pytest.approx(-1)


def test_a_constant_has_no_correlation():
    x = RNG.standard_normal((20, 2))
    y = np.stack([np.full(20, 0.1), x[:, 1]], axis=1)
    for r in (pearson(x, y), spearman(x, y), interval(bootstrap(x, y, seed=0)[1])[0]):
        assert np.isnan(r[0])
        assert r[1] == pytest.approx(1)
    assert np.isnan(pearson(x[:2], x[:2])).all()  # two points always lie on a line


def test_resampled_ranks_are_those_of_the_resampled_sites():
    x, y = correlated(12, 0.5, 1)
    linear, ranked = bootstrap(x, y, seed=3, resamples=40)
    counts = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=40)
    for i, count in enumerate(counts):
        a, b = np.repeat(x[:, 0], count), np.repeat(y[:, 0], count)
        assert linear[i, 0] == pytest.approx(stats.pearsonr(a, b)[0])
        assert ranked[i, 0] == pytest.approx(stats.spearmanr(a, b)[0])


def test_the_interval_holds_the_true_r_about_as_often_as_it_says():
    x, y = correlated(60, 0.7, 300)
    low, high = interval(bootstrap(x, y, seed=1, resamples=300)[0])
    held = ((low < 0.7) & (high > 0.7)).mean()
    assert 0.86 < held < 0.99  # 95 % minus the known optimism of a percentile interval at n = 60, ± 4 × 1.5 %


def test_the_seed_decides_the_interval():
    x, y = correlated(15, 0.5, 2)
    assert np.array_equal(bootstrap(x, y, seed=1)[0], bootstrap(x, y, seed=1)[0])
    assert not np.array_equal(bootstrap(x, y, seed=1)[0], bootstrap(x, y, seed=2)[0])


def test_shuffled_sites_correlate_as_little_as_theory_says():
    x, y = correlated(100, 1.0, 30)
    assert shuffled(x, y, seed=0).mean() == pytest.approx(1.96 / np.sqrt(100), rel=0.1)
