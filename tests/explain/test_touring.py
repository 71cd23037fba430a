"""Probes read what is there and not what is not; a patch restores where it must."""

import numpy as np
import pytest

from brainmu.errors import InputError
from brainmu.explain import probe_taps, restoration
from brainmu.explain.taps import Inside


@pytest.fixture(scope="module")
def insides(decided, sessions):
    return [Inside(decided, s) for s in sessions[:2]]


def test_a_probe_reads_what_a_tap_holds_and_not_noise(decided, sessions, insides):
    rng = np.random.default_rng(0)
    held = [i.activations("summary", np.arange(len(i.proba))).numpy()[:, :3].sum(1) for i in insides]
    there = probe_taps(decided, sessions[:2], held, ["summary", "context"], controls=10)
    assert there["score"][0] > 0.8 and there["selectivity"][0] > 0.6 and there["p_value"][0] < 0.1 and there["n"][0] == sum(map(len, held))
    text = [np.where(v > np.median(v), "high", "low") for v in held]
    text[0][:5] = ""
    named = probe_taps(decided, sessions[:2], text, ["summary"], controls=10)
    assert named["score"][0] > 0.75 and abs(named["control"][0] - 0.5) < 0.15 and named["n"][0] == sum(map(len, held)) - 5
    noise = probe_taps(decided, sessions[:2], [rng.standard_normal(len(v)) for v in held], ["summary"], controls=10)
    assert abs(noise["score"][0]) < 0.3
    each = probe_taps(decided, sessions[:2], held, ["latents", "summary"], by_latent=True, controls=1)
    assert each["latent"].tolist() == [0, 1, 2, 3, -1] and np.isfinite(each["score"]).all()


def test_refusals_of_probes(decided, sessions, insides):
    n = len(insides[0].proba)
    with pytest.raises(InputError, match="expected at least 2"):
        probe_taps(decided, sessions[:1], [np.zeros(n)])
    with pytest.raises(InputError, match=r"have shape \(3,\)"):
        probe_taps(decided, sessions[:2], [np.zeros(3), np.zeros(n)])
    with pytest.raises(InputError, match="no session holds a value that the others have"):
        probe_taps(decided, sessions[:2], [np.full(n, "W"), np.full(n, "N")], taps=["summary"], controls=3)
    with pytest.raises(InputError, match="text in some sessions and numbers"):
        probe_taps(decided, sessions[:2], [np.ones(n), np.full(n, "N")])
    with pytest.raises(InputError, match="0 epochs have a value"):
        probe_taps(decided, sessions[:2], [np.full(n, np.nan), np.zeros(n)])


def test_a_patch_restores_all_at_the_summary_and_nothing_beside_it(untrained, sessions):
    source = sessions[0]
    lfp = source.signals["lfp"]
    at = np.arange(10, 80, 10)
    x = lfp.read().copy()
    for k in at:
        x[int(k * 4 * 625) : int((k + 1) * 4 * 625)] *= 4
    edited = type(source).from_arrays(
        "edited", source.subject, signals={"lfp": dict(values=x, rate=625.0, unit="uV", kind="lfp", channels=["a", "b"]),
        "emg": dict(values=source.signals["emg"].read(), rate=625.0, unit="uV", kind="emg")},
        spikes=dict(times=source.spikes.times, unit=source.spikes.unit_id),
    )  # fmt: skip
    found = restoration(untrained, edited, source, at, target="NREM", lags=(-1, 0, 1))
    assert found.sel(tap="summary", lag=0).item() == pytest.approx(1.0, abs=0.02) and found.sel(tap="latents", lag=0).item() == pytest.approx(1.0, abs=0.02)
    # Epochs that were not edited hold the same before the context, and the causal context reads none after.
    assert abs(found.sel(tap="summary", lag=-1).item()) < 0.02 and abs(found.sel(tap="context.0", lag=1).item()) < 1e-6
    assert "in the model" in found.attrs["unit"] and found.attrs["n_epochs"] == 7 and found.attrs["gap"] != 0
    with pytest.raises(InputError, match="lags do not meet"):
        restoration(untrained, edited, source, [10, 11], target="NREM")
    with pytest.raises(InputError, match="nothing to restore"):
        restoration(untrained, source, source, at, target="NREM")
