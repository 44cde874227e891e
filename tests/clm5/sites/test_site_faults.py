"""What the check must refuse: each fault is planted in good data and must be named, with site, find and fix."""

import numpy as np
import pytest

from clm5.grid import NODE
from tests.clm5.sites.good_sites import N, at, changed, good, one_horizon, refusal, renamed_ids

# fault: (how to plant it, what the message must contain)
FAULTS = {
    "missing variable": (lambda: good().drop_vars("water_scalar"), ["water_scalar", "is missing", "virtual-0001"]),
    "another name": (lambda: good().rename(soc="SOC"), ["soc (measured", "is missing", "SOC? Rename it"]),
    "no units": (
        lambda: good().assign(soc=good().soc.assign_attrs(units=None).drop_attrs()),
        ["soc has no units attribute", "'gC m-3'"],
    ),
    "degC, converted to no avail": (
        lambda: changed("soil_temperature", lambda v: v - 273.15, units="degC"),
        ["soil_temperature must be in 'K'", "'degC'", "Add 273.15"],
    ),
    "°C under the unit K": (
        lambda: changed("soil_temperature", lambda v: v - 273.15),
        ["virtual-0001: soil_temperature must lie in [200, 340] K", "In °C? Add 273.15"],
    ),
    "scalar in percent": (
        lambda: changed("oxygen_scalar", lambda v: 100 * v, units="%"),
        ["oxygen_scalar must be in '1'", "In percent? Divide by 100"],
    ),
    "scalar in percent, unit 1": (
        lambda: changed("nitrogen_scalar", lambda v: 100 * v),
        ["nitrogen_scalar must lie in [0, 1]", "In percent? Divide by 100"],
    ),
    "kg in litter": (
        lambda: changed("litter_input", lambda v: v / 1e3, units="kgC m-2 month-1"),
        ["litter_input must be in 'gC m-2 month-1'", "Multiply by 1000"],
    ),
    "litter per second": (
        lambda: changed("litter_input", lambda v: v / 2.6e6, units="gC m-2 s-1"),
        ["litter_input must be in", "Per second?"],
    ),
    "horizons in cm": (lambda: changed("lower", lambda v: 100 * v, units="cm"), ["lower must be in 'm'", "In cm?"]),
    "horizons in cm, unit m": (lambda: changed("lower", lambda v: 100 * v), ["lower must lie in [0, 20] m", "In cm?"]),
    "swapped axes": (
        lambda: good().assign(soil_temperature=good().soil_temperature.transpose("site", "month", "layer")),
        ["soil_temperature must have dims (site, layer, month)", "transpose("],
    ),
    "one month only": (
        lambda: good().assign(water_scalar=good().water_scalar.isel(month=0, drop=True)),
        ["water_scalar must have dims", "Add or rename the axis"],
    ),
    "25 layers": (
        lambda: good().drop_vars("layer").pad(layer=(0, 5), mode="edge"),
        ["dimension layer: expected size 20, found 25", "slice(20)"],
    ),
    "text in numbers": (
        lambda: good().assign(oxygen_scalar=good().oxygen_scalar.astype(str)),
        ["oxygen_scalar must be numbers"],
    ),
    "layers upside down": (
        lambda: good().isel(layer=slice(None, None, -1)),
        ["coordinate layer", "Upside down", "slice(None, None, -1)"],
    ),
    "layers in cm": (lambda: good().assign_coords(layer=100 * NODE), ["coordinate layer", "In cm? Divide by 100"]),
    "values upside down": (
        lambda: changed("soil_temperature", lambda v: v[:, ::-1]),
        ["soil_temperature varies more over the year at the bottom", "Turn the variable"],
    ),
    "months from 0": (lambda: good().assign_coords(month=np.arange(12)), ["coordinate month", "Counted from 0"]),
    "pools in another order": (
        lambda: good().isel(pool=[1, 0, 2, 3]),
        ["coordinate pool", "Reorder"],
    ),
    "horizon upside down": (
        lambda: good().assign(upper=good().lower.assign_attrs(), lower=good().upper),
        ["horizon 0 reaches from", "Upside down: are upper and lower swapped"],
    ),
    "negative depth": (lambda: changed("upper", lambda v: -v - 0.01), ["upper must lie in", "counted upward"]),
    "negative carbon": (
        lambda: changed("soc", at((3, 1), -9.0)),
        ["virtual-0004: soc must lie in", "-9", "Negative soil carbon"],
    ),
    "zero carbon": (lambda: changed("soc", at((3, 1), 0.0)), ["virtual-0004: soc is exactly 0 in horizon 1"]),
    "NaN forcing": (
        lambda: changed("soil_temperature", at((2, 7, 11), np.nan)),
        ["virtual-0003: soil_temperature", "first nan at (layer, month) = (7, 11)", "Fill the gap"],
    ),
    "infinite forcing": (
        lambda: changed("litter_input", at((2, 3, 4), np.inf)),
        ["virtual-0003: litter_input", "first inf at (pool, month) = (3, 4)", "overflow"],
    ),
    "negative litter": (
        lambda: changed("litter_input", at((1, 0, 0), -1.0)),
        ["virtual-0002: litter_input", "Negative litter input"],
    ),
    "no litter all year": (lambda: changed("litter_input", at(4, 0.0)), ["virtual-0005: litter_input is zero"]),
    "water zero everywhere": (
        lambda: changed("water_scalar", at(0, 0.0)),
        ["virtual-0001: water_scalar is zero in all months of every layer"],
    ),
    "water zero in one layer": (
        lambda: changed("water_scalar", at((0, 2), 0.0)),
        ["virtual-0001: water_scalar is zero in all months at layer 2", "floor"],
    ),
    "bedrock not whole": (
        lambda: changed("bedrock_layer", at(1, 7.5)),
        ["virtual-0002: bedrock_layer must be whole layer numbers", "7.5"],
    ),
    "bedrock of 0": (lambda: changed("bedrock_layer", at(1, 0.0)), ["must lie in [1, 25]", "Counted from 0"]),
    "bedrock that moves": (
        lambda: changed("bedrock_layer", at((1, 3), 3.0)),
        ["virtual-0002: bedrock_layer must be the same in all months"],
    ),
    "thaw depth in cm": (
        lambda: changed("active_layer_depth", lambda v: 100 * v, units="cm"),
        ["active_layer_depth must be in 'm'", "In cm?"],
    ),
    "half a horizon": (
        lambda: changed("upper", at((5, 0), np.nan)),
        ["virtual-0006: soc horizon 0 has lower and soc but no upper"],
    ),
    "longitude 0…360": (lambda: changed("lon", lambda v: v + 360), ["lon must lie in", "Subtract 360"]),
    "latitude out of range": (lambda: changed("lat", at(0, 95.0)), ["virtual-0001: lat must lie in", "swapped"]),
    "duplicate ids": (lambda: renamed_ids(["a", "b", "a", "c", "d", "e"]), ["site a: the id occurs 2 times"]),
    "ids are numbers": (lambda: renamed_ids(np.arange(N)), ["ids must be text", "astype(str)"]),
    "an empty id": (lambda: renamed_ids(["a", "b", " ", "c", "d", "e"]), ["1 of 6 ids are empty"]),
    "no sites": (lambda: good().isel(site=slice(0)), ["holds no site"]),
    "no site axis": (lambda: good().isel(site=0), ["dimension site: missing"]),
    "not a data set": (lambda: good().soc, ["expected an xarray.Dataset, found DataArray"]),
    "NaN covariate": (
        lambda: changed("ph", at(2, np.nan)),
        ["virtual-0003: covariate ph must be finite", "impute"],
    ),
    "category without a flag": (
        lambda: good().assign(land_cover=good().land_cover.copy(data=np.array([99, 0, 0, 0, 0, 0]))),
        ["virtual-0001: covariate land_cover must be one of flag_values", "99"],
    ),
    "flags and meanings differ": (
        lambda: good().assign(land_cover=good().land_cover.assign_attrs(flag_meanings="forest rain forest")),
        ["covariate land_cover: a category needs as many flag_values", "7 and 3"],
    ),
    "text covariate": (
        lambda: good().assign(ph=good().ph.copy(data=np.array(list("abcdef")))),
        ["covariate ph must be numbers", "flag_values"],
    ),
    "covariate without units": (lambda: good().assign(ph=good().ph.drop_attrs().assign_attrs(role="covariate")),
        ["covariate ph has no units"],
    ),
    "covariate by layer": (
        lambda: good().assign(ph=good().ph.expand_dims(layer=20, axis=1)),
        ["covariate ph must have dims (site)"],
    ),
    "misspelled role": (lambda: good().assign(ph=good().ph.assign_attrs(role="covariates")), ["ph: role must be"]),
    "truth of the other box": (lambda: good().assign_attrs(bounds="proda"), ["true_theta is not what true_unit means"]),
    "truth outside the cube": (lambda: changed("true_unit", at((0, 0), 1.5)), ["true_unit must lie in [0, 1]"]),
    "truth without a box": (
        lambda: _without_bounds(),
        ["attribute bounds"],
    ),
}  # fmt: skip

FAULTS |= {
    "horizon below bedrock": (
        lambda: changed("bedrock_layer", at(2, 3.0)),
        ["virtual-0003: soc horizon", "below the modelled soil", "bedrock ends at 0.12 m (layer 3)", "too shallow?"],
    ),
    "horizon with its middle below bedrock": (
        lambda: one_horizon(0.4, 1.6, bedrock=8),
        ["virtual-0001: soc horizon 0 from 0.4 to 1.6 m has its middle below", "0.92 m (layer 8)", "set it to NaN"],
    ),
    "horizon below the model": (
        lambda: one_horizon(9.0, 10.0, bedrock=25),
        ["virtual-0001: soc horizon 0 from 9 to 10 m lies below", "ends at 8.6 m", "in other units?"],
    ),
    "horizon twice": (
        lambda: good().assign(upper=_again(good().upper), lower=_again(good().lower)),
        ["virtual-0001: upper horizons 0 and 1 both reach from 0", "count double", "Keep their mean"],
    ),
    "thin horizon": (
        lambda: one_horizon(0.1, 0.1004),
        ["virtual-0001: lower horizon 0 at 0.1 m is 0.4 mm thick, less than 1 mm"],
    ),
    "litter in kg under our unit": (
        lambda: changed("litter_input", lambda v: v / 1e3),
        ["virtual-0001 and all others: litter_input sums to", "In kg? Multiply by 1000"],
    ),
    "litter per second under our unit": (
        lambda: changed("litter_input", lambda v: v / 2.6e6),
        ["litter_input sums to", "Per second?"],
    ),
    "annual litter in every month": (
        lambda: changed("litter_input", lambda v: 12 * v),
        ["litter_input sums to", "sum in every month"],
    ),
    "kg m-3 under our unit": (
        lambda: changed("soc", lambda v: v / 1e3),
        ["virtual-0001 and all others: soc must be gC m-3", "In kg m-3? Multiply by 1000"],
    ),
    "10 layers": (
        lambda: good().isel(layer=slice(10)),
        ["dimension layer: expected size 20, found 10", "Layers of another model"],
    ),
    "°F under the unit K": (
        lambda: changed("soil_temperature", lambda v: 1.8 * v - 459.67 + 30),
        ["soil_temperature must lie in", "In °F?"],
    ),
    "bool covariate": (
        lambda: good().assign(ph=good().ph.copy(data=np.arange(N) > 2)),
        ["covariate ph must be numbers, found type bool. Use .astype(int)"],
    ),
    "no unit printed for a ratio": (
        lambda: changed("oxygen_scalar", at((0, 0, 0), -1.0)),
        ["oxygen_scalar must lie in [0, 1]; 1 of"],
    ),
}


def _again(faces):
    """The first horizon in the place of the second, too."""
    values = faces.values.copy()
    values[:, 1] = values[:, 0]
    return faces.copy(data=values)


def _without_bounds():
    sites = good()
    del sites.attrs["bounds"]
    return sites


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_with_site_find_and_fix(fault):
    plant, expected = FAULTS[fault]
    message = refusal(plant())
    for text in expected:
        assert text in message
