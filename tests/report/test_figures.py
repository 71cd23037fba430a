"""Every figure is drawn from real parts; what it says in words and numbers is read back from its artists."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from brainmu.core import Effect, EventTable, Hypnogram, Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.fields import place_fields
from brainmu.replay.position import position_of
from brainmu.report.figures.effects import effect_figure, intervention_figure
from brainmu.report.figures.events import best_examples, events_figure, snippet_figure
from brainmu.report.figures.explain import attribution_figure, curves_figure
from brainmu.report.figures.overview import overview_figure
from brainmu.report.figures.reading import clearest_channel, display_spectrogram, level, pick_channel
from brainmu.report.figures.replay import decoding_figure, fields_figure, replay_figure, track_figure
from brainmu.report.figures.sleep import agreement, hypnogram_figure, sleep_structure_figure, staging_figure
from brainmu.report.figures.training import loss_columns, training_figure


def words(fig: Figure) -> str:
    """Everything a reader of the figure can read, titles, axes, legends, notes."""
    out = [t.get_text() for t in fig.texts]
    if fig._suptitle is not None:
        out.append(fig._suptitle.get_text())
    for ax in fig.axes:
        out += [ax.get_title(loc=where) for where in ("left", "center", "right")]
        out += [ax.get_xlabel(), ax.get_ylabel(), *(t.get_text() for t in ax.texts), *(t.get_text() for t in ax.get_yticklabels())]
        legend = ax.get_legend()
        out += [t.get_text() for t in legend.get_texts()] if legend else []
    return "\n".join(out)


def draw(fig: Figure) -> np.ndarray:
    """The rendered pixels; also proves that the figure can be drawn at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_hypnogram_over_spectrogram(mouse):
    fig = hypnogram_figure(mouse.recording, {"expert": mouse.truth, "stager": mouse.model})
    said = words(fig)
    for part in ("expert  (n = 600 epochs of 4 s)", "stager", "P(stage)", "frequency (Hz)", "dB re 1 µV²/Hz", "EMG level, emg/neck", "session time (min)"):
        assert part in said
    assert draw(fig).std() > 10


def test_hypnogram_without_any_signal_and_with_nothing():
    h = Hypnogram.from_stages(["W", "N2", "N3", "R"] * 5, epoch=30.0)
    assert "N3" in words(hypnogram_figure(Recording("a"), h))
    with pytest.raises(MissingDataError, match="no hypnogram and no LFP or EEG"):
        hypnogram_figure(Recording("a"))


def test_the_spectrogram_finds_the_frequency_and_shows_what_is_missing():
    rate, f0 = 250.0, 7.0
    x = 100 * np.sin(2 * np.pi * f0 * np.arange(int(120 * rate)) / rate)
    x[int(60 * rate) : int(80 * rate)] = np.nan
    rec = Recording.from_arrays("a", signals={"lfp": dict(values=x, rate=rate, unit="uV", kind="lfp", start=1000.0)})
    edges, f, power = display_spectrogram(rec.signals["lfp"], 1000.0, 1120.0, columns=60)
    seen = np.isfinite(power).all(0)
    middle = (edges[:-1] + edges[1:]) / 2
    assert abs(f[power[:, seen].mean(1).argmax()] - f0) < 0.4
    assert not seen[(middle > 1062) & (middle < 1078)].any()
    assert seen[(middle > 1004) & (middle < 1056)].all()
    # A sine of amplitude A holds A²/2: the density integrates to that.
    total = (10 ** (power[:, seen] / 10)).sum(0).mean() * (f[1] - f[0])
    assert total == pytest.approx(5000, rel=0.05)


def test_level_is_rms_or_mean_and_nan_in_gaps(mouse):
    emg = mouse.recording.signals["emg"]
    rms = level(emg, 0, 2400, columns=100)[:, 0]
    assert rms[:20] == pytest.approx(40, rel=0.2)
    lfp = level(mouse.recording.signals["lfp"], 1400, 1600, columns=20)
    assert np.isnan(lfp[10:13]).all() and np.isfinite(lfp[:9]).all()
    mean = level(mouse.recording.signals["position"], 0, 600, columns=600, mean=True)
    assert np.nanmin(mean) >= 0 and np.nanmax(mean) <= 3


def test_pick_channel(mouse):
    assert pick_channel(mouse.recording)[0] == "lfp/CA1_1"
    assert pick_channel(mouse.recording, "CA1_2")[0] == "lfp/CA1_2"
    assert pick_channel(mouse.recording, "emg/neck")[1].n_channels == 1
    assert pick_channel(mouse.recording, kinds=("eog",)) is None
    with pytest.raises(MissingDataError, match="no channel 'CA3', the recording has lfp/CA1_1"):
        pick_channel(mouse.recording, "CA3")


def test_dead_channels_are_passed_over_and_events_shown_where_they_are_clearest():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 30, (50000, 4))
    x[:, 0] = 0.0  # disconnected
    i = np.arange(20000, 20100)
    x[i, 2] += 200 * np.sin(2 * np.pi * 180 * i / 1000)
    rec = Recording.from_arrays("a", signals={"lfp": dict(values=x, rate=1000.0, unit="uV", kind="lfp", channels=["dead", "far", "near", "other"])})
    assert pick_channel(rec)[0] == "lfp/far"
    assert clearest_channel(rec, np.array([[20.0, 20.1]]), (150.0, 250.0)) == "lfp/near"
    assert clearest_channel(rec, np.array([[20.0, 20.1]]), (600.0, 700.0)) is None
    assert "near (µV)" in words(events_figure(rec, EventTable([20.0], [20.1], kind="ripple")))


def test_the_track_is_drawn_with_its_coordinate(mouse):
    from brainmu.replay.contexts import fit_contexts

    contexts, _ = fit_contexts(mouse.recording, mouse.recording.spikes, position_of(mouse.recording))
    fig = track_figure(contexts)
    said = words(fig)
    assert "run: track of" in said and "along the track (m)" in said and "s of running" in said
    draw(fig)
    with pytest.raises(InputError, match="no contexts"):
        track_figure({})


def test_silent_units_get_no_row_among_the_fields(mouse):
    from brainmu.core import Spikes

    times, ids = mouse.recording.spikes.times, mouse.recording.spikes.unit_id
    few = Spikes(np.r_[times, 30.0, 70.0], np.r_[ids, 99, 99])
    f = place_fields(few, position_of(mouse.recording), Intervals([[0, 600]]), smoothing=0.1)
    fig = fields_figure(f)
    assert "n = 25 units, 1 silent" in words(fig) and fig.axes[0].get_ylim() == (0, 24)


def test_structure_counts_transitions_and_shares():
    h = Hypnogram.from_stages(["WAKE"] * 2 + ["NREM"] * 6 + ["REM"] * 2 + ["WAKE"], epoch=4.0)
    said = words(sleep_structure_figure(h))
    assert "(n = 3)" in said and "54.5" in said and "NREM, n = 1, median 24 s" in said
    with pytest.raises(InputError, match="no hypnogram holds a scored epoch"):
        sleep_structure_figure(Hypnogram.from_stages(["UNS"] * 4, epoch=4.0))


def test_agreement_aligns_epochs_and_merges_stage_sets():
    fine = Hypnogram.from_stages(["WAKE"] * 30 + ["NREM"] * 30, epoch=1.0, start=10.0)
    coarse = Hypnogram.from_stages(["W", "W", "N2", "N3"], epoch=15.0, start=10.0)
    counts, stages = agreement(coarse, fine)
    assert stages == ("WAKE", "NREM", "REM") and counts.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 0]]
    with pytest.raises(InputError, match="share no scored epoch"):
        agreement(coarse, Hypnogram.from_stages(["W"], epoch=15.0, start=5000.0))


def test_staging_figure_states_kappa_and_n(mouse):
    from brainmu.core.metrics import cohen_kappa, confusion

    said = words(staging_figure(mouse.truth, mouse.model, ("expert", "stager")))
    kappa = cohen_kappa(confusion(mouse.truth.codes, mouse.model.codes, 3))
    assert f"κ = {kappa:.2f}" in said and "n = 600 epochs" in said and "stager minus expert (% of time)" in said


def test_best_examples_prefers_low_p_then_high_score():
    e = EventTable([0.0, 1, 2, 3], [0.1, 1.1, 2.1, 3.1], p_value=[0.5, 0.01, np.nan, 0.01], score=[9.0, 1, 5, 2])
    assert best_examples(e, 3).tolist() == [3, 1, 0]
    assert best_examples(EventTable([0.0, 1], [0.1, 1.1])).tolist() == [0, 1]


def test_events_with_and_without_lfp_spikes_and_posterior(mouse):
    e = mouse.events
    row = int(best_examples(e, 1)[0])
    t = np.linspace(e.start[row], e.stop[row], 8)
    p = xr.DataArray(np.eye(8)[:, :5], dims=("time", "position"), coords={"time": t, "position": ("position", np.arange(5.0), {"units": "m"})})
    fig = events_figure(mouse.recording, e, rows=[row, row + 1], posteriors={row: p}, order=np.arange(24))
    said = words(fig)
    for part in ("150–250 Hz\n(µV)", "24 units, by place field", "decoded\nposition (m)", "not decoded", "time from peak (ms)", "p = "):
        assert part in said
    assert draw(fig).std() > 10
    rec = mouse.recording
    by_content = events_figure(rec, e, rows=[row], order={str(e.content[row]): np.arange(20), "elsewhere": np.arange(10)})
    assert "20 units, by place field" in words(by_content)
    assert "10 units, by place field" in words(events_figure(rec, e, rows=[row], order={"elsewhere": np.arange(10)}))
    only_spikes = Recording("s", spikes=rec.spikes)
    assert "units" in words(events_figure(only_spikes, e))
    slow = Recording.from_arrays("slow", signals={"lfp": dict(values=np.random.default_rng(0).normal(size=(24000, 1)), rate=10.0, unit="uV", kind="lfp")})
    assert "Hz" not in words(events_figure(slow, e[e.start < 2300]))  # no ripple band at 10 Hz
    with pytest.raises(MissingDataError, match="an event shows nothing"):
        events_figure(Recording("none"), e)
    with pytest.raises(InputError, match="event table is empty"):
        events_figure(rec, e[:0])
    with pytest.raises(InputError, match=r"rows \[999\]"):
        events_figure(rec, e, rows=[999])


def test_examples_are_taken_where_there_is_signal(mouse):
    gap = EventTable([1510.0, 1100.0], [1510.1, 1100.1], p_value=[0.0, 0.5])
    assert "at 1100" in words(events_figure(mouse.recording, gap)) and "at 1510" not in words(events_figure(mouse.recording, gap))


def test_snippet_shows_raw_streams(mouse):
    said = words(snippet_figure(mouse.recording, 800.0, 806.0, events=mouse.events, hypnogram=mouse.truth))
    assert "lfp (625 Hz; red bar" in said and "spikes of 24 units" in said and "session time (s)" in said
    with pytest.raises(InputError, match="expected start < stop"):
        snippet_figure(mouse.recording, 6.0, 6.0)
    with pytest.raises(MissingDataError, match="nothing was recorded"):
        snippet_figure(mouse.recording, 9000.0, 9006.0)


def test_fields_along_the_track_and_in_two_dimensions(mouse):
    f = place_fields(mouse.recording.spikes, position_of(mouse.recording), Intervals([[0, 600]]))
    fig = fields_figure({"A": f, "B": f})
    assert "unit, sorted by peak in A" in words(fig) and "position along the track (m)" in words(fig)
    shown = fig.axes[0].collections[0].get_array()
    assert (np.diff(np.asarray(shown).reshape(24, -1).argmax(1)) >= 0).all()  # sorted
    rng = np.random.default_rng(0)
    xy = np.cumsum(rng.normal(0, 0.05, (9000, 2)), 0) % 1.0
    rec = Recording.from_arrays("open", signals={"position": dict(values=xy, rate=30.0, unit="m", kind="position", channels=["x", "y"])},
                                spikes=dict(times=np.sort(rng.uniform(0, 300, 900)), unit=rng.integers(0, 3, 900)))  # fmt: skip
    maps = place_fields(rec.spikes, position_of(rec), Intervals([[0, 300]]), bin=0.1, smoothing=0.1)
    assert "unit 0" in words(fields_figure(maps))


def test_decoding_states_error_against_chance():
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 2, 500)
    d = t + rng.normal(0, 0.05, 500)
    said = words(decoding_figure(t, d, bin_size=0.25, folds=5))
    median = np.median(np.abs(t - d))
    assert f"decoded, median {median:.3g} m" in said and "5 folds, bins of 250 ms" in said and "n = 500" in said
    with pytest.raises(InputError, match="expected the same"):
        decoding_figure(t, d[:-1])
    with pytest.raises(InputError, match="no time bin"):
        decoding_figure([np.nan], [1.0])


def test_replay_counts_significant_events_by_content():
    n = 200
    e = EventTable(
        np.arange(n),
        np.arange(n) + 0.1,
        content=["A", "B"] * 100,
        kind="replay",
        score=np.linspace(0, 1, n),
        p_value=np.r_[np.full(20, 0.01), np.full(180, 0.6)],
    )
    said = words(replay_figure(e, null=np.linspace(0, 0.5, 1000)))
    assert "20 of 200 at p < 0.05\n(10.0 expected by chance)" in said and "10 of 100" in said and "shuffled (n = 1000)" in said
    bare = words(replay_figure(EventTable([0.0], [0.1])))
    assert "unknown" not in bare and "p-value" not in bare
    with pytest.raises(InputError, match="replay table is empty"):
        replay_figure(EventTable([], []))


def attribution(rng):
    return xr.Dataset(
        {
            "lfp": (("time_lfp", "channel_lfp", "band"), rng.normal(size=(40, 3, 4)), {"unit": "log odds"}),
            "spikes": (("time_spikes", "unit"), rng.normal(size=(20, 50)), {"unit": "log odds"}),
        },
        coords={"time_lfp": np.r_[np.arange(20) * 2.0, 2000 + np.arange(20) * 2.0], "time_spikes": np.arange(20) * 4.0, "channel_lfp": ["a", "b", "c"],
                "band": ["delta", "theta", "sigma", "beta"], "unit": np.arange(50)},
        attrs={"target": "REM"},
    )  # fmt: skip


def test_attribution_by_channel_band_unit_and_time(mouse):
    maps = attribution(np.random.default_rng(0))
    fig = attribution_figure(maps, hypnogram=mouse.truth, events=mouse.events)
    said = words(fig)
    for part in ("attribution to REM: red speaks for it", "log odds", "strongest 24 of 50", "channel", "band", "session time (min)"):
        assert part in said
    draw(fig)
    moving = next(ax for ax in fig.axes if "lfp over time" in ax.get_title(loc="left"))
    values = np.ma.asarray(moving.collections[0].get_array()).reshape(3, -1)
    assert values.mask[:, values.shape[1] // 2].all() and not values.mask[:, 0].any()  # between the explained epochs nothing is drawn
    with pytest.raises(InputError, match="expected finite values over channel"):
        attribution_figure(xr.DataArray(np.zeros(3), dims="window"))


def test_a_map_that_failed_says_so_in_the_picture_and_its_curves():
    share = np.linspace(0, 1, 5)
    attrs = {"target": "REM", "verdict": "failed: shares do not add up", "curve_share": share, "deletion": (1 - share) ** 3, "insertion": share**0.3,
             "random_deletion": 1 - share, "random_insertion": share, "deletion_auc": 0.2, "insertion_auc": 0.8, "random_deletion_auc": 0.5,
             "random_insertion_auc": 0.5}  # fmt: skip
    maps = attribution(np.random.default_rng(0)).assign_attrs(attrs)
    assert "FAILED ITS CHECKS: attribution to REM" in words(attribution_figure(maps))
    assert "FAILED" not in words(attribution_figure(maps.assign_attrs(verdict="passed")))
    # A band that the recording cannot hold is no band of share 0.
    bands = [str(b) for b in maps["band"].to_numpy()]
    for drawn, given in ((bands, maps), (bands[:-1], maps.assign(lfp=maps["lfp"].where(maps["band"] != bands[-1], 0.0)))):
        ax = next(a for a in attribution_figure(given).axes if a.get_xlabel() == "band")
        assert [t.get_text() for t in ax.get_xticklabels()] == drawn
    fig = curves_figure(attrs)
    draw(fig)
    assert np.array_equal(fig.axes[0].lines[2].get_ydata(), attrs["deletion"]) and "area 0.20, random 0.50" in words(fig) and "FAILED ITS CHECKS" in words(fig)
    with pytest.raises(InputError, match="no deletion"):
        curves_figure({"curve_share": share})


def test_conductance_is_drawn_by_latent_and_attention_is_no_attribution():
    rng = np.random.default_rng(0)
    maps = xr.Dataset(
        {"latents": (("time_latents", "latent", "dimension"), rng.normal(size=(6, 4, 8)), {"unit": "log odds"})}, coords={"time_latents": np.arange(6.0)}
    )
    fig = attribution_figure(maps)
    widths = [bar.get_width() for bar in fig.axes[0].patches]
    assert np.allclose(widths, maps["latents"].mean("time_latents").sum("dimension"))
    attention = xr.Dataset({"attention_lfp": (("time_attention_lfp", "channel_attention_lfp"), rng.random((6, 2)), {"unit": "share of attention"})},
                           attrs={"target": "REM"})  # fmt: skip
    said = words(attribution_figure(attention))
    assert "not an attribution of the output" in said and "red speaks" not in said


def test_attribution_of_many_streams_keeps_every_panel_open(mouse):
    rng = np.random.default_rng(0)
    bands = ["slow", "delta", "theta", "sigma", "beta", "gamma", "ripple", "fast"]
    maps = xr.Dataset(
        {"lfp": (("time_lfp", "channel_lfp", "band"), rng.normal(size=(20, 5, 8))), "emg": (("time_emg", "channel_emg", "band"), rng.normal(size=(20, 1, 8))),
         "spikes": (("time_spikes", "unit"), rng.normal(size=(5, 40)))},
        coords={"time_lfp": np.arange(20.0), "time_emg": np.arange(20.0), "time_spikes": np.arange(5) * 4.0, "band": np.array(bands, dtype="S6"),
                "channel_lfp": [b"a", b"b", b"c", b"d", b"e"]},
    )  # fmt: skip
    elsewhere = EventTable([900.0], [900.1], kind="ripple")
    fig = attribution_figure(maps, hypnogram=mouse.truth, events=elsewhere)
    draw(fig)  # a collapsed layout warns, and warnings are errors
    assert all(ax.get_position().height * fig.get_figheight() > 0.6 for ax in fig.axes if not hasattr(ax, "_colorbar"))
    assert "a\n" in words(fig) and "b'" not in words(fig)


def test_attribution_sums_over_bands_and_averages_over_time():
    a = xr.DataArray(np.ones((2, 3, 10)), dims=("channel", "band", "time"), coords={"time": np.arange(10.0)})
    fig = attribution_figure(a)
    still, moving = fig.axes[0].collections[0].get_array(), fig.axes[2].collections[0].get_array()
    assert np.allclose(still, 1.0) and np.allclose(moving, 3.0)


def effect(level, **more):
    return Effect(
        "Does it", 0.12, 0.05, 0.19, 0.003, "risk difference", level, null=np.random.default_rng(0).normal(0, 0.03, 500), n_units=6, n_events=360, **more
    )


def test_effect_states_estimate_interval_level_and_n():
    rows = [{"risk_assigned": 0.3, "risk_control": 0.2}] * 3
    curve = [{"seconds": 4.0 * k, "risk_assigned": 0.07 * k, "risk_control": 0.05 * k} for k in (1, 2)]
    said = words(effect_figure(effect("experimental", horizon=20.0, diagnostics={"horizons": curve, "animals": rows})))
    for part in (
        "+0.12 [+0.05, +0.19]",
        "p = 0.003, 6 animals, 360 events",
        "experimental: assignment was randomised",
        "cumulative risk by arm",
        "n = 3",
        "within 20 s",
    ):
        assert part in said
    lags = [{"lag": k, "estimate": 0.1, "low": 0.0, "high": 0.2} for k in range(3)] + [{"lag": 3, "error": "too few"}]
    controls = [{"quantity": "length of the previous bout", "estimate": 0.1, "low": -0.1, "high": 0.3}]
    said = words(effect_figure(effect("observational", diagnostics={"lag_scan": lags, "negative_controls": controls})))
    assert "rests on the stated assumptions" in said and "lag scan" in said and "length of the previous\nbout" in said
    bare = Effect("Does it", 0.1, float("nan"), float("nan"), float("nan"), "x", "observational")
    draw(effect_figure(bare))
    with pytest.raises(InputError, match="no finite estimate"):
        effect_figure(Effect("Does it", float("nan"), 0, 1, 1, "x", "observational"))


def test_an_intervention_is_always_said_to_be_in_the_model():
    rng = np.random.default_rng(0)
    inside = effect("model", diagnostics={"change_events": rng.normal(size=30).tolist(), "change_placebos": rng.normal(size=19)})
    for fig in (
        intervention_figure(inside),
        intervention_figure(effect("model")),
        intervention_figure(inside, changes=rng.normal(size=9), placebo=rng.normal(size=9)),
    ):
        assert "in the model" in words(fig)
        draw(fig)
    with pytest.raises(InputError, match="expected 'model'"):
        intervention_figure(effect("experimental"))


def test_training_curves_against_trivial_baselines():
    m = pd.DataFrame(
        {
            "step": [0, 1, 2],
            "train/loss": [3.0, 2, 1],
            "val/loss_lfp": [np.nan, 2.0, 0.5],
            "val/baseline_lfp": [1.0] * 3,
            "val/loss_spikes": [3.0, 2, 2],
            "baseline/spikes": 1.0,
        }
    )
    assert loss_columns(m) == {
        "all": {"train": "train/loss"},
        "lfp": {"val": "val/loss_lfp", "baseline": "val/baseline_lfp"},
        "spikes": {"val": "val/loss_spikes", "baseline": "baseline/spikes"},
    }
    said = words(training_figure(m))
    assert "−50 % against trivial" in said and "not better than trivial" in said
    with pytest.raises(InputError, match="expected at least one with 'loss'"):
        training_figure(pd.DataFrame({"epoch": [1]}))


def test_training_curves_of_a_pretraining_run():
    m = pd.DataFrame({"stage": ["window"] * 3 + ["context"] * 2, "step": [1, 2, 3, 1, 2], "loss": [3.0, 2, 1, 2, 1], "spectrum": [3.0, 2, 1, np.nan, np.nan],
                      "spikes": [0.2, 0.1, -0.1, np.nan, np.nan], "context": [np.nan] * 3 + [2.0, 1], "summary_spectrum": [1.0] * 5, "learning_rate": [0.1] * 5,
                      "slow": [np.nan] * 5})  # fmt: skip
    held = {"spectrum": {"model": 0.8, "mean": 1.0, "last": 1.4}, "spikes": {"model": -0.3, "mean": -0.2}, "context": {"model": 1.1, "mean": 1.0}}
    fig = training_figure(m, held)
    said = words(fig)
    assert [ax.get_title(loc="left").split()[1].rstrip(":") for ax in fig.axes] == ["spectrum", "spikes", "context"]
    assert "best trivial: mean" in said and "−20 % against trivial" in said and "0.1 below trivial" in said and "not better than trivial" in said


def test_overview_names_every_stream_and_label(mouse):
    said = words(overview_figure(mouse.recording))
    for part in ("2 × lfp, 625 Hz\nRMS (µV)", "1 × position, 30 Hz\nmean (m)", "24 units", "scoring\n600 epochs of 4 s", "60 events", "1 span, 600 s"):
        assert part in said
    with pytest.raises(MissingDataError, match="nothing to draw"):
        overview_figure(Recording("a"))


def test_odd_recordings_are_drawn_too():
    rng = np.random.default_rng(0)
    rec = Recording.from_arrays(
        "odd",
        signals={
            "bands": dict(values=rng.normal(size=(100, 30)), rate=1 / 30, kind="features"),
            "flat": dict(values=np.zeros((600, 1)), rate=10.0, kind="eeg", unit="V"),
            "void": dict(values=np.full((600, 1), np.nan), rate=10.0, kind="emg", unit="uV"),
            "lick": dict(values=np.ones((3, 1)), times=[1.0, 5.0, 900.0], kind="behaviour"),
            "short": dict(values=np.ones((1, 1)), rate=1000.0, kind="lfp"),
        },
    )
    draw(overview_figure(rec))
    draw(hypnogram_figure(rec))
    draw(snippet_figure(rec, 0.0, 6.0))


def test_figures_leave_global_style_and_pyplot_alone(mouse):
    import sys

    before = dict(mpl.rcParams)
    draw(hypnogram_figure(mouse.recording))
    assert dict(mpl.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()
