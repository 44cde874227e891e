"""The course of a training: its picture, and the line on the terminal."""

import dataclasses
import io
import json
import sys

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import rich.console

import binn
from binn.progress import training_progress

ROW = {"epoch": 10, "train_loss": 12.345, "validation_loss": 13.456, "validation_nse": 0.512}


def test_a_run_in_a_folder_leaves_its_picture(trained):
    _, folder = trained
    assert matplotlib.image.imread(folder / "history.png").std() > 0.05, "not blank"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")], "nothing half written"


def test_the_picture_shows_every_member_and_the_epochs_that_were_kept(trained, tmp_path):
    run, _ = trained
    figure = binn.plot_history(run, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
    loss, skill = figure.axes
    assert len(loss.lines) == 3 * len(run.best_epoch)
    second = run.history[run.history.member == 1]
    np.testing.assert_array_equal(loss.lines[3].get_ydata(), second.train_loss)
    np.testing.assert_array_equal(loss.lines[4].get_ydata(), second.validation_loss)
    np.testing.assert_array_equal(skill.lines[2].get_ydata(), second.validation_nse)
    assert skill.lines[3].get_xdata().item() == run.best_epoch[1]
    assert loss.lines[4].get_ydata().min() == loss.lines[5].get_ydata().item(), "kept: least validation loss"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["training sites", "validation sites", "epoch that was kept"]
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize(("scale", "kind"), [(100.0, "log"), (1.2, "linear"), (-1.0, "linear")])
def test_losses_over_orders_of_magnitude_and_below_zero_are_drawn(trained, scale, kind):
    run, _ = trained
    made = pd.DataFrame({"member": 0, "epoch": [1, 2], "train_loss": [scale, 1.0], "validation_loss": [scale, 1.0]})
    one = dataclasses.replace(run, history=made.assign(validation_nse=np.nan), best_epoch=(2,), weights=run.weights[:1])
    assert binn.plot_history(one).axes[0].get_yscale() == kind


def test_a_run_of_an_earlier_version_is_taken_up_with_the_fields_that_it_did_not_know(sites, trained):
    """Format 2 held fewer fields of `Config` at first: what was not there was as it is by default."""
    run, folder = trained
    path = folder / "run.json"
    now = path.read_text()
    record = json.loads(now)
    for name in ("learn_dropout", "schedule", "profile", "sites_in_memory"):
        del record["config"][name]
    try:
        path.write_text(json.dumps(record))
        again = binn.fit(sites, run.config, folder, seed=1, progress=False)
        assert again.wall_time == run.wall_time, "read, not trained again"
        other = dataclasses.replace(run.config, schedule="constant")
        with pytest.raises(ValueError, match="schedule was 'cosine', is 'constant'"):
            binn.fit(sites, other, folder, seed=1, progress=False)
        record["config"]["colour"] = "red"
        path.write_text(json.dumps(record))
        with pytest.raises(ValueError, match="no field colour"):
            binn.fit(sites, run.config, folder, seed=1, progress=False)
    finally:
        path.write_text(now)


@pytest.mark.parametrize(("width", "bar"), [(80, False), (120, True)])
def test_the_terminal_shows_scores_and_the_time_left_on_one_line(monkeypatch, width, bar):
    seen = io.StringIO()
    real = rich.console.Console
    monkeypatch.setattr(
        rich.console, "Console", lambda **_: real(file=seen, force_terminal=True, width=width, color_system=None)
    )
    with training_progress(100, 1, 5, show=True) as report:
        report(ROW)
        report(ROW | {"epoch": 100})
    last = next(line for line in reversed(seen.getvalue().splitlines()) if "epoch" in line)
    for words in ("training 2/5", "epoch 100/100", "loss 12.35", "validation 13.46", "NSE 0.512", "left ≤ 0"):
        assert words in last, last
    assert ("━" in last) == bar


def test_nothing_is_written_where_nobody_watches(capfd):
    for show in (True, False):  # the test's stderr is no terminal
        with training_progress(3, 0, 1, show=show) as report:
            report(ROW)
    assert capfd.readouterr() == ("", "")
