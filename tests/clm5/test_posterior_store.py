"""A posterior file that is filled by batches: whole batches alone are read, wrong ones are refused by name."""

import numpy as np
import pytest
import xarray as xr

import clm5

pytest.importorskip("zarr", reason="stores need the extra 'zarr'")

COST = {"method": "mc_dropout", "wall_time": 1.5, "n_solves": 10, "n_gradients": 20, "seed": 4}
LABELS = np.array(["a", "b", "much longer", "c", "d"])


@pytest.fixture(scope="module")
def tree():
    sites = clm5.sites.virtual(5, seed=1)
    unit = np.random.default_rng(0).uniform(0.1, 0.9, (2, 6, 5, 21))
    stats = {"diverging": np.random.default_rng(1).uniform(size=(2, 6, 5)) < 0.5}
    constant = {"split": (("site",), LABELS)}
    return clm5.assemble_posterior(unit, sites, clm5.ModelOptions(), **COST, sample_stats=stats, constant=constant)


def part(tree, first, last):
    """A batch's tree, with text as narrow as the batch allows."""
    chosen = tree.isel(site=slice(first, last))
    split = chosen["constant_data"].split
    chosen["constant_data"]["split"] = split.copy(data=np.array(list(split.values)))
    return chosen


@pytest.fixture
def store(tree, tmp_path):
    return clm5.PosteriorStore(tmp_path / "posterior.zarr", list(tree["posterior"].site.values), 2)


def test_batches_in_any_order_make_the_file_that_is_written_at_once(tree, store, tmp_path):
    for first in (4, 0, 2):
        assert not store.finished[first : first + 2].any()
        store.write(part(tree, first, first + 2))
    np.testing.assert_array_equal(store.finished, True)
    with pytest.raises(ValueError, match="not finished"):
        clm5.open_posterior(store.path)
    finished = store.finish({"n_solves": 30, "wall_time_s": 4.5})
    read = clm5.open_posterior(store.path)
    assert not read["posterior"].dataset["theta"].variable._in_memory
    for name, group in tree.children.items():
        for found in (read, finished):
            xr.testing.assert_identical(found[name].to_dataset().load().drop_attrs(), group.to_dataset().drop_attrs())
    assert read["constant_data"].split.values.tolist() == LABELS.tolist()  # text is not cut to that of the first batch
    assert read["posterior"].soc.attrs["units"] == "gC m-3"
    assert {name: read.attrs[name] for name in ("seed", "n_solves", "wall_time_s", "bounds")} == {
        "seed": 4,
        "n_solves": 30,
        "wall_time_s": 4.5,
        "bounds": "binn",
    }
    clm5.save_posterior(read, tmp_path / "copy.nc")  # what one format says of its layout is nothing to another
    clm5.save_posterior(read, tmp_path / "copy.zarr")
    for copy in ("copy.nc", "copy.zarr"):
        np.testing.assert_array_equal(clm5.open_posterior(tmp_path / copy)["posterior"].soc, tree["posterior"].soc)


def test_sites_are_replaced_together_and_others_are_left(tree, store):
    for first in (0, 2, 4):
        store.write(part(tree, first, first + 2))
    other = tree.isel(site=[3, 0]).map_over_datasets(
        lambda d: d.assign({n: v.copy(data=v.values[::-1]) for n, v in d.items()})
    )
    store.replace(other)
    read = store.finish({})["posterior"].theta.values
    np.testing.assert_array_equal(read[:, :, [1, 2, 4]], tree["posterior"].theta[:, :, [1, 2, 4]])
    np.testing.assert_array_equal(read[:, :, [3, 0]], tree["posterior"].theta[::-1, :, [3, 0]])


def test_what_does_not_fit_is_refused_by_name(tree, store, tmp_path):
    ids = list(store.site)
    with pytest.raises(ValueError, match="one batch of 2 sites"):
        store.write(part(tree, 1, 3))
    store.write(part(tree, 2, 4))
    with pytest.raises(ValueError, match="one batch of 2 sites"):
        store.write(part(tree, 0, 1))
    short = part(tree, 0, 2)
    short["sample_stats"] = xr.DataTree(short["sample_stats"].to_dataset().isel(draw=slice(3)))
    with pytest.raises(ValueError, match=r"sample_stats/.*'draw': 3.*begun with"):
        store.write(short)
    assert not store.finished[:2].any()
    with pytest.raises(ValueError, match=f"site '{ids[0]}' was never written"):
        store.replace(part(tree, 0, 1))
    with pytest.raises(ValueError, match="3 of 5 sites"):
        store.finish({})
    with pytest.raises(ValueError, match="no place for site 'elsewhere'"):
        store.rows(["elsewhere"])
    with pytest.raises(ValueError, match="5 sites in batches of 2, not these 5 in batches of 3"):
        clm5.PosteriorStore(store.path, ids, 3)
    with pytest.raises(ValueError, match="not these 4"):
        clm5.PosteriorStore(store.path, ids[:4], 2)
    with pytest.raises(ValueError, match=r"must end in \.zarr"):
        clm5.PosteriorStore(tmp_path / "posterior.nc", ids, 2)
    clm5.save_posterior(part(tree, 0, 2), tmp_path / "file.zarr")
    with pytest.raises(ValueError, match="is no store"):
        clm5.PosteriorStore(tmp_path / "file.zarr", ids, 2)
