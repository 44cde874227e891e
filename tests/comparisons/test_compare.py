"""Two posterior files with a known relation: what was planted is what the comparison finds."""

import fake_trees
import numpy as np
import pytest
import xarray as xr

import comparisons
from comparisons.cautions import converged
from comparisons.compare import cautions_of, claims, learned
from comparisons.tables import agreement, cost
from comparisons.verdict import classify, headline, truth_sentence

INFORMED = ["w_scaling", "tau4s3", "fs1s3", "efolding"]  # learned by at least 30 tosses


def compared(sites, network_fault=None, sampler_fault=None, **attrs):
    network = fake_trees.fake_tree(sites, method="mc_dropout", seed=2, fault=network_fault, **attrs)
    return comparisons.compare(network, fake_trees.fake_tree(sites, fault=sampler_fault), sites)


def test_equal_posteriors_agree_as_well_as_the_sampler_with_itself(result):
    one = result.sel(parameter=INFORMED)
    assert (one.parameter_pearson > 0.98).all()
    floor = one.parameter_overlap_floor.mean("site")
    best = one.parameter_overlap_best.mean("site")
    assert (one.parameter_overlap.mean("site") > best - 0.03).all()
    skill = (one.parameter_overlap.mean("site") - floor) / (best - floor)
    assert (skill > 0.9).all()
    np.testing.assert_allclose(one.parameter_overlap_skill, skill)
    assert np.all([word == "agree" for word in classify(one)])
    assert "largely agree" in headline(result)


def test_parameters_that_nobody_learned_are_called_so(result):
    unlearned = result.drop_sel(parameter=[*INFORMED, "beta", "q10"])
    assert (unlearned.parameter_overlap.mean("site") > 0.9).all()  # agreement by itself
    assert unlearned.parameter_overlap_skill.isnull().all()
    assert not claims(unlearned).any()
    assert not learned(unlearned).any()
    assert set(classify(unlearned)) == {"both below the threshold"}
    assert (np.abs(unlearned.parameter_sd_reduction.mean("site")) < 0.03).all()
    assert (unlearned.parameter_kl.mean("site") < 0.03).all()


def test_learned_spread_is_the_exact_one(result):
    """Beta(1 + k, 201 − k) for w_scaling, averaged over k that is uniform on 0 … 200."""
    k = np.arange(201)
    sd = np.sqrt((1 + k) * (201 - k) / (202**2 * 203))
    gain = result.parameter_sd_reduction.sel(parameter="w_scaling").mean("site")
    np.testing.assert_allclose(gain, 1 - np.mean(sd) * np.sqrt(12), atol=0.03)  # 15 sites, not all k


def test_a_shift_is_seen_by_overlap_distance_and_coverage_though_not_always_by_r(sites, result):
    shifted = compared(sites, "shifted").sel(parameter=INFORMED)
    assert (shifted.parameter_overlap.mean("site") < 0.5).all()
    assert (shifted.parameter_wasserstein.mean("site") > 0.15).all()
    assert (shifted.parameter_coverage.sel(way="network", level=0.95) < 0.5).all()
    assert (shifted.parameter_coverage.sel(way="sampler", level=0.95) > 0.7).all()
    assert (result.parameter_wasserstein.sel(parameter=INFORMED).mean("site") < 0.02).all()


def test_false_certainty_is_seen_by_overlap_and_coverage_and_not_by_r(sites):
    narrow = compared(sites, "narrow").sel(parameter=INFORMED)
    assert (narrow.parameter_pearson > 0.98).all()
    assert (narrow.parameter_overlap.mean("site") < 0.65).all()
    assert (narrow.parameter_coverage.sel(way="network", level=0.9).mean() < 0.6).all()
    assert (narrow.parameter_sd_reduction.sel(way="network") > narrow.parameter_sd_reduction.sel(way="sampler")).all()
    assert set(classify(narrow)) == {"same order, other values"}


def test_a_network_that_quotes_the_prior_scores_the_floor(sites):
    prior = compared(sites, "prior").sel(parameter=INFORMED)
    floor = prior.parameter_overlap_floor
    np.testing.assert_allclose(prior.parameter_overlap.mean("site"), floor.mean("site"), atol=0.03)
    assert (np.abs(prior.parameter_overlap_skill) < 0.06).all()
    assert set(classify(prior)) == {"network below the threshold"}
    assert (prior.parameter_coverage.sel(way="network", level=0.9) > 0.6).all()  # calibrated, and empty
    assert (prior.parameter_interval_width.sel(way="network") > 0.95).all()


def test_posteriors_of_other_sites_do_not_correlate(sites):
    shuffled = compared(sites, "shuffled").sel(parameter=INFORMED)
    assert (np.abs(shuffled.parameter_pearson) < 0.8).all()
    assert set(classify(shuffled)) == {"disagree"}


def test_plant_carbon_input_is_one_by_construction_and_left_out_of_the_second_mean(result):
    assert float(result.process_pearson.sel(process="carbon_input")) == pytest.approx(1, abs=1e-6)
    assert result.process_overlap.sel(process="carbon_input").isnull().all()
    r = result.process_pearson
    mean = result.average_pearson
    assert float(mean.sel(average="processes")) == pytest.approx(float(r.mean()))
    without = r.drop_sel(process="carbon_input").mean()
    assert float(mean.sel(average="processes_without_carbon_input")) == pytest.approx(float(without))
    low, high = result.average_pearson_interval.sel(average="processes").values
    assert low <= float(r.mean()) <= high


def test_what_the_prior_alone_would_correlate_stands_beside_r(result):
    """Plant carbon input differs between sites by forcing alone, and is the only one of these that does."""
    assert float(result.process_pearson_prior.sel(process="carbon_input")) == pytest.approx(1)
    assert float(result.average_pearson_prior.sel(average="processes")) == pytest.approx(1)


def test_where_the_prior_is_the_same_everywhere_it_has_no_r(result):
    assert result.parameter_pearson_prior.isnull().all()
    assert result.process_pearson_prior.sel(process=["A", "K"]).isnull().all()


def test_a_process_that_is_nil_at_one_site_is_missing_there_alone(sites):
    """Without mixing at a bedrock column V is 0 whatever the parameters."""
    network, sampler = fake_trees.fake_tree(sites, method="mc_dropout", seed=2), fake_trees.fake_tree(sites)
    for tree in (network, sampler):
        for group in ("posterior", "prior"):
            tree[group]["processes"].values[:, :, 4, fake_trees.PROCESSES.index("V")] = 0.0
    found = comparisons.compare(network, sampler, sites)
    overlap = found.process_overlap.sel(process="V")
    assert np.flatnonzero(overlap.isnull()).tolist() == [4]
    assert np.isfinite(found.process_pearson.sel(process="V"))


def test_sites_are_matched_by_id_in_whatever_order(network, sampler, sites, result):
    order = np.random.default_rng(0).permutation(15)
    turned = sampler.map_over_datasets(lambda d: d.isel(site=order) if "site" in d.dims else d)
    turned.attrs = sampler.attrs
    again = comparisons.compare(network, turned, sites)
    np.testing.assert_allclose(again.parameter_overlap, result.parameter_overlap, atol=1e-12)
    np.testing.assert_allclose(again.parameter_pearson, result.parameter_pearson, atol=1e-12)


def test_only_common_sites_are_compared_and_none_is_an_error(network, sampler, sites):
    half = sampler.map_over_datasets(lambda d: d.isel(site=slice(0, 6)) if "site" in d.dims else d)
    half.attrs = sampler.attrs
    assert comparisons.compare(network, half, sites).sizes["site"] == 6
    smaller = network.map_over_datasets(lambda d: d.isel(site=slice(0, 6)) if "site" in d.dims else d)
    smaller.attrs = network.attrs
    fewer = comparisons.compare(smaller, sampler, sites)
    assert any("only the 6 common ones" in sentence for sentence in cautions_of(fewer))
    other = sites.assign_coords(site=[f"else-{i}" for i in range(15)])
    with pytest.raises(ValueError, match=r"no common sites: network has 15 \(site-000"):
        comparisons.compare(network, sampler, other)


def test_different_bounds_are_refused(network, sites):
    with pytest.raises(ValueError, match=r"different bounds: .*'binn'.*'proda'"):
        comparisons.compare(network, fake_trees.fake_tree(sites, bounds="proda"), sites)


@pytest.mark.parametrize(("option", "value"), [("rules", "binn"), ("error", "proda"), ("sigma", 0.6)])
def test_a_different_question_is_a_caution(sites, option, value):
    found = cautions_of(compared(sites, **{option: value}))
    assert any(f"{option} is {value!r} for the network" in sentence for sentence in found)


def test_other_site_data_are_a_caution(sites, result):
    assert not any("fingerprint" in sentence for sentence in cautions_of(result))
    found = compared(sites, sites_fingerprint="0" * 64)
    assert any("fingerprints differ" in sentence for sentence in cautions_of(found))


def test_chains_that_did_not_mix_come_first_and_dropout_members_have_no_rhat(sites, result):
    assert result.rhat.sel(way="network").isnull().all()
    assert converged(result).all()
    unmixed = compared(sites, sampler_fault="unmixed")
    assert not converged(unmixed).any()
    assert cautions_of(unmixed)[0].startswith("The sampler has not converged at 15 of 15 sites")


def test_soil_carbon_is_scored_where_the_network_had_not_seen_it(result):
    assert result.soc_standing.sel(way="network", subset="test") == "held out"
    assert result.soc_standing.sel(way="network", subset="train") == "in sample"
    assert result.soc_standing.sel(way="sampler", subset="test") == "in sample"
    assert result.soc_sites.sel(subset=["test", "validation", "train", "all"]).values.tolist() == [5, 0, 10, 15]
    assert (result.soc_skill.sel(metric="n", subset="test") == 20).all()  # 5 test sites of 4 horizons
    assert (result.soc_skill.sel(metric="rmse", subset=["test", "train", "all"]) < 0.5).all()
    assert result.soc_skill.sel(metric="rmse", subset="validation").isnull().all()  # there are none


def test_a_missing_variable_is_named(network, sampler, sites):
    broken = xr.DataTree.from_dict({k: v.to_dataset() for k, v in sampler.children.items()})
    broken.attrs = sampler.attrs
    broken["posterior"] = xr.DataTree(broken["posterior"].to_dataset().drop_vars("soc"))
    with pytest.raises(ValueError, match="sampler: no variable 'soc'"):
        comparisons.compare(network, broken, sites)


def test_a_result_survives_its_file(result, tmp_path):
    path = comparisons.save(result, tmp_path / "comparison.nc")
    back = xr.load_dataset(path, engine="h5netcdf")
    xr.testing.assert_allclose(back, result)
    assert cautions_of(back) == cautions_of(result)
    assert back.attrs["sampler_method"] == "nuts"
    assert [p.name for p in tmp_path.iterdir()] == ["comparison.nc"]


def test_unknown_truth_leaves_out_what_needs_it():
    sites = fake_trees.fake_sites(4, truth=False)
    found = compared(sites)
    assert "parameter_coverage" not in found
    assert any("only 4 sites" in sentence for sentence in cautions_of(found))


def test_the_floor_of_the_table_is_the_samplers_own(sites):
    found = compared(sites, "narrow")
    table = agreement(found, "parameter").set_index("parameter").loc[INFORMED]
    np.testing.assert_allclose(
        table["overlap_floor_prior_vs_sampler"],
        found.parameter_overlap_prior.sel(way="sampler", parameter=INFORMED).mean("site"),
        atol=0.03,
    )
    assert (table["overlap_floor_prior_vs_sampler"] > table["overlap_prior_vs_network"] + 0.05).all()


def test_r_on_held_out_sites_is_over_those_alone(result):
    assert int(result.n_held_out) == 5
    x, y = (result.parameter_mean.sel(parameter="tau4s3", way=way).values[::3] for way in ("network", "sampler"))
    assert float(result.parameter_pearson_held_out.sel(parameter="tau4s3")) == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_process_intervals_are_measured_in_widths_of_the_process_prior(result, sampler):
    tails = np.quantile(sampler["prior"].processes.sel(process="A").values[0], [0.05, 0.95], axis=0)
    draws = sampler["posterior"].processes.sel(process="A").values.reshape(-1, 15)
    own = np.quantile(draws, [0.05, 0.95], axis=0)
    expected = (own[1] - own[0]).mean() / (tails[1] - tails[0]).mean()
    found = float(result.process_interval_width.sel(way="sampler", level=0.9, process="A"))
    assert found == pytest.approx(expected, rel=0.02)


def test_truth_is_counted_over_what_both_claim(result):
    common = claims(result).all("way")
    assert 0 < int(common.sum()) < 21
    share = result.parameter_coverage.sel(level=0.9, way="network")[common.values].mean()
    said = truth_sentence(result)
    assert f"the network's {100 * float(share):.0f} %" in said
    assert f"of the {int(common.sum())} parameters that both ways claim" in said
    assert "the bare prior box holds" in said


def test_predictive_intervals_of_soil_carbon_hold_what_they_promise(result, sampler):
    predicted = sampler["posterior_predictive"].soc_observed.values.reshape(-1, 15, 4)
    low, high = np.quantile(predicted, [0.05, 0.95], axis=0)  # NaN where a horizon is padding
    observed = sampler["observed_data"].soc_observed.values
    there = np.isfinite(predicted).all(0) & np.isfinite(observed)
    expected = ((observed >= low) & (observed <= high))[there].mean()
    found = float(result.soc_coverage.sel(way="sampler", subset="all", level=0.9))
    assert found == pytest.approx(expected, abs=0.03)
    assert found > 0.75


def test_the_bare_box_covers_a_truth_drawn_from_it_as_promised_and_one_in_its_middle_always(sites, result):
    share = result.parameter_coverage_prior.mean("parameter")
    np.testing.assert_allclose(share, result.level, atol=0.08)
    middle = sites.copy(deep=True)
    middle["true_unit"][:] = 0.5
    middle["true_theta"][:] = np.asarray(fake_trees.ParameterSpace("binn").physical(middle.true_unit.values))
    assert (compared_with(middle).parameter_coverage_prior == 1).all()


def compared_with(sites):
    return comparisons.compare(
        fake_trees.fake_tree(sites, method="mc_dropout", seed=2), fake_trees.fake_tree(sites), sites
    )


def test_narrow_around_the_wrong_value_is_claimed_and_not_learned(sites):
    wrong = fake_trees.fake_tree(sites, method="mc_dropout", seed=2)
    rng = np.random.default_rng(0)
    unit = 0.9 + 0.02 * rng.random(wrong["posterior"].unit.shape)
    network = fake_trees.tree_of(unit, sites, sites.attrs["planted_carbon"], method="mc_dropout", seed=2)
    found = comparisons.compare(network, fake_trees.fake_tree(sites), sites)
    assert claims(found).sel(way="network").all()
    assert not learned(found).sel(way="network", parameter=INFORMED).any()
    assert learned(found).sel(way="sampler", parameter=INFORMED).all()
    expected = np.sqrt(((sites.true_unit - 0.5) ** 2).mean("site"))
    np.testing.assert_allclose(found.parameter_rmse_prior, expected, rtol=1e-5)


def test_means_that_vary_over_sites_are_a_claim_without_a_narrower_spread(sites):
    carbon = sites.attrs["planted_carbon"]
    low_end = np.where(np.arange(15) % 2 == 0, 0.3, 0.7)[:, None]  # share of the draws at the lower end of the box
    unit = np.random.default_rng(1).random((2, 200, 15, 21))
    unit = np.where(unit < low_end, unit / 5, 1 - (1 - unit) / 5)  # at both ends: wider than the box
    network = fake_trees.tree_of(unit, sites, carbon, method="mc_dropout")
    found = comparisons.compare(network, fake_trees.fake_tree(sites), sites)
    assert (found.parameter_sd_reduction.sel(way="network").mean("site") < 0.1).all()
    assert claims(found).sel(way="network").all()
    threshold = found.assign_attrs(variation_threshold=9.0)
    assert not claims(threshold).sel(way="network").any()


def test_an_interval_of_r_across_its_threshold_is_undecided(result):
    one = result.sel(parameter=INFORMED).copy(deep=True)
    one.parameter_pearson_interval[:] = [0.5, 0.9]
    assert set(classify(one)) == {"undecided"}


def test_the_learned_threshold_is_the_results_own(result):
    assert not learned(result.assign_attrs(gain_threshold=2.0, variation_threshold=99.0)).any()


def test_diagnostics_of_the_file_are_used_and_tail_draws_count(network, sampler, sites):
    numbers = {"rhat": 1.001, "ess_bulk": 900.0, "ess_tail": 300.0}
    two = ("site", "parameter")
    group = xr.Dataset({k: (two, np.full((15, 21), v)) for k, v in numbers.items()}, {"site": sites.site.values})
    tree = xr.DataTree.from_dict({**{k: v.to_dataset() for k, v in sampler.children.items()}, "diagnostics": group})
    tree.attrs = sampler.attrs
    found = comparisons.compare(network, tree, sites)
    assert (found.ess_tail.sel(way="sampler") == 300).all()
    assert converged(found).all()
    assert not converged(found, 1.01, 400).any()


def test_cost_is_per_site_of_the_file_and_says_how_often_trees_were_cut(network, sites):
    sampler = fake_trees.fake_tree(sites, max_tree_depth=6)
    depth = np.where(np.arange(100) < 25, 6, 5)[None, :, None] * np.ones((4, 1, 15), int)
    sampler["sample_stats"] = xr.DataTree(
        sampler["sample_stats"].to_dataset().assign(tree_depth=(("chain", "draw", "site"), depth))
    )
    costs = cost(comparisons.compare(network, sampler, sites)).set_index("way").loc["sampler"]
    assert costs["max_tree_depth_share"] == 0.25
    assert costs["n_gradients_per_site"] == 100_000
    assert costs["ess_per_second"] > 0


def test_another_loss_is_a_caution(sites, result):
    assert not any("another loss" in sentence for sentence in cautions_of(result))
    assert any("another loss, 'l1'" in sentence for sentence in cautions_of(compared(sites, loss="l1")))
