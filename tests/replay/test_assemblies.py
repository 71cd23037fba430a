from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainmu as bm
from brainmu.core import Intervals
from brainmu.errors import BrainmuError, FormatError, InputError, MissingDataError, NotFoundError
from brainmu.replay import Assemblies, explained_variance, find_activations, fit_assemblies, template_strength
from brainmu.replay.activations import _Reader
from brainmu.replay.assemblies import electrode_pairs

GROUPS = (range(6), range(6, 12), range(10, 16))
EPOCHS = {"before": Intervals([[0, 200]]), "run": Intervals([[200, 500]]), "rest": Intervals([[500, 800]])}


def planted(seed: int = 0, active: tuple[tuple[int, ...], ...] = ((), (0, 1, 2), (0, 1)), units: int = 24, table: pd.DataFrame | None = None):
    """Independent units, and volleys of the groups that are `active` in each epoch (20 a minute)."""
    rng = np.random.default_rng(seed)
    times, ids, volleys = [], [], {}
    for k in range(units):
        t = rng.uniform(0, 800, rng.poisson(1600))
        times.append(t)
        ids.append(np.full(len(t), k))
    for spans, groups in zip(EPOCHS.values(), active):
        for g in groups:
            at = np.sort(rng.uniform(spans.start[0] + 1, spans.stop[0] - 1, int(spans.duration / 3)))
            volleys[g, spans.start[0]] = at
            for k in GROUPS[g]:
                fired = at[rng.random(len(at)) < 0.8]
                times.append(fired + rng.normal(0, 0.005, len(fired)))
                ids.append(np.full(len(fired), k))
    spikes = {"times": np.concatenate(times), "unit": np.concatenate(ids)} | ({} if table is None else {"units": table})
    return bm.Recording.from_arrays(f"day{seed}", spikes=spikes, labels=EPOCHS), volleys


@pytest.fixture(scope="module")
def day():
    return planted()


@pytest.fixture(scope="module")
def fitted(day) -> Assemblies:
    return fit_assemblies(day[0])


@pytest.mark.parametrize("number", ["marchenko-pastur", "circular-shift", 3])
def test_planted_assemblies_are_found_with_their_members(day, number) -> None:
    found = fit_assemblies(day[0], number=number, shifts=40)
    assert len(found) == 3
    assert {frozenset(m) for m in found.members} == {frozenset(g) for g in GROUPS}  # ICA tells apart two that share units
    assert np.allclose(np.linalg.norm(found.templates, axis=1), 1, atol=1e-5) and found.number == (number if isinstance(number, str) else "given")


def test_components_agree_with_those_of_scikit_learn(day, fitted) -> None:
    from sklearn.decomposition import FastICA

    from brainmu.replay.assemblies import _usable, _z_counts

    z, _ = _z_counts(*_usable(day[0], "run", 50, 30.0), 0.025)
    vector = np.linalg.eigh(z.T @ z)[1][:, -3:]
    other = FastICA(3, whiten="unit-variance", random_state=0, tol=1e-6, max_iter=1000).fit(z @ vector).components_ @ vector.T
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    assert np.abs(fitted.templates @ other.T).max(1).min() > 0.99


def test_pca_gives_orthogonal_templates_in_the_same_space(day, fitted) -> None:
    pca = fit_assemblies(day[0], method="pca")
    assert np.allclose(pca.templates @ pca.templates.T, np.eye(3), atol=1e-4)
    assert np.allclose(np.linalg.norm(fitted.templates @ pca.templates.T, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("number", ["marchenko-pastur", "circular-shift"])
def test_independent_units_hold_no_assembly(number) -> None:
    found = [len(fit_assemblies(planted(50 + k, active=((), (), ()))[0], number=number, shifts=30)) for k in range(6)]
    assert sum(found) <= 2
    none = fit_assemblies(planted(50, active=((), (), ()))[0], number="circular-shift", shifts=30)
    if len(none) == 0:
        assert len(find_activations(planted(50)[0], none)) == 0


def test_activations_are_the_planted_volleys(day, fitted) -> None:
    rec, volleys = day
    found = find_activations(rec, fitted)
    assert set(found.kind) == {"assembly"} and {"assembly", "score", "n_members"} <= set(found.columns)
    for k, members in enumerate(fitted.members):
        group = next(g for g in range(3) if set(GROUPS[g]) == set(members))
        mine = found[found.assembly == k]
        if group == 2:  # silent in rest
            assert found.rate[k] < 2.5
            continue
        truth = volleys[group, 500.0]
        assert (np.abs(mine.peak[:, None] - truth).min(0) < 0.02).mean() > 0.8
        assert (np.abs(mine.peak[:, None] - truth).min(1) < 0.03).mean() > 0.85
        assert set(mine.content) == {f"assembly {k}"} and np.median(mine.duration) < 0.05


def test_the_surrogate_rate_is_about_the_false_rate_that_was_asked_for(day, fitted) -> None:
    for asked in (1.0, 4.0):
        found = find_activations(day[0], fitted, false_rate=asked)
        assert np.mean(found.surrogate_rate) == pytest.approx(asked, rel=0.6)
    by_hand = find_activations(day[0], fitted, threshold=1e6)
    assert len(by_hand) == 0 and by_hand.false_rate is None and by_hand.surrogate_rate == [0.0, 0.0, 0.0]


def test_blocks_do_not_show(day, fitted, monkeypatch) -> None:
    from brainmu.replay import activations

    whole = find_activations(day[0], fitted, threshold=30.0)
    monkeypatch.setattr(activations, "_BLOCK_SECONDS", 7.3)
    parts = find_activations(day[0], fitted, threshold=30.0)
    assert abs(len(whole) - len(parts)) <= 1 and np.isin(whole.peak.round(3), parts.peak.round(3)).mean() > 0.99
    assert np.allclose(fitted.strength(day[0]).max(), whole.score.max(), rtol=1e-3)


@given(seed=st.integers(0, 10_000), units=st.integers(3, 8))
@settings(deadline=None, max_examples=20)
def test_strength_is_the_quadratic_form_without_pairs_on_one_electrode(seed: int, units: int) -> None:
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 20, 300)
    table = pd.DataFrame({"id": np.arange(units), "tetrode": rng.integers(0, 3, units)})
    rec = bm.Recording.from_arrays("q", spikes={"times": t, "unit": rng.integers(0, units, 300), "units": table})
    w = rng.standard_normal((2, units)).astype(np.float32)
    about = {"bin_size": 0.025, "method": "ica", "number": "given", "eigenvalues": np.ones(units), "bound": 1.0, "during": Intervals([[0, 20]])}
    given_ = Assemblies(w, np.arange(units, dtype=np.int32), ("",) * units, ("a", "b"), **about, same="tetrode")
    reader = _Reader.fit(given_, rec, Intervals([[0, 20]]), 0.01)
    ((_, x, _),) = reader._trains(reader.spikes, reader.spans)
    z = np.divide(x - reader.mean, reader.sd, out=np.zeros_like(x, dtype=np.float64), where=reader.sd > 0)
    pairs, _ = electrode_pairs(table, "tetrode")
    p = np.stack([np.where(pairs | np.eye(units, dtype=bool), 0, np.outer(v, v)) for v in w])
    assert np.allclose(given_.strength(rec, Intervals([[0, 20]]), step=0.01), np.einsum("tu,kuv,tv->tk", z, p, z), atol=1e-3 * np.abs(z).max() ** 2)


def test_clusters_that_share_spikes_are_no_assembly() -> None:
    table = pd.DataFrame({"id": np.arange(24), "tetrode": np.arange(24) // 4})
    rec, _ = planted(3, active=((), (), ()), table=table)
    s = rec.spikes
    mixed = s.times[s.unit_id == 0][::3]  # a third of unit 0's spikes also in unit 1's cluster
    doubled = {"times": np.r_[s.times, mixed + 1e-4], "unit": np.r_[s.unit_id, np.ones(len(mixed), int)], "units": table}
    rec = bm.Recording.from_arrays("x", spikes=doubled, labels=EPOCHS)
    naive, careful = fit_assemblies(rec, same=""), fit_assemblies(rec)
    assert [0, 1] in naive.members and [0, 1] not in careful.members and careful.same == "tetrode"
    strength = template_strength(rec, naive, {"rest": "rest"}, same="", draws=200)
    shared = template_strength(rec, naive, {"rest": "rest"}, same="tetrode", draws=200)
    row = naive.members.index([0, 1])
    assert strength.p_value[row] < 0.02 and shared.p_value[row] > 0.05 and shared.one_electrode[row] > 0.1


def test_templates_are_stronger_in_rest_than_dealt_ones_where_they_were_planted(day, fitted) -> None:
    table = template_strength(day[0], fitted, {"before": "before", "run": "run", "rest": "rest"}, draws=300)
    rows = table.set_index(["epoch", "assembly"])
    assert rows.loc[("rest", "all"), "p_value"] < 0.01 and rows.loc[("before", "all"), "p_value"] > 0.05
    assert rows.loc["run", "fitted"].all() and not rows.loc["rest", "fitted"].any()
    silent = next(n for n, m in zip(fitted.names, fitted.members) if set(m) == set(GROUPS[2]))
    assert rows.loc[("rest", silent), "p_value"] > 0.05


def test_explained_variance_exceeds_its_reverse_where_the_run_comes_back(day) -> None:
    found = explained_variance(day[0], "before", draws=300, window=100.0, bin_size=0.1)
    assert found.ev > 0.1 and found.difference_interval[0] > 0 and found.p_value < 0.02 and found.rev < 0.05
    assert len(found.by_window) == 3 and (found.by_window.ev > found.by_window.rev).all() and found.n_pairs == 24 * 23 / 2 == len(found.correlations)
    assert "EV" in repr(found)


def test_explained_variance_of_nothing_is_not_significant() -> None:
    p = [explained_variance(planted(70 + k, active=((0,), (0,), (0,)))[0], "before", draws=60).p_value for k in range(8)]
    assert min(p) > 0.016 and np.mean(p) > 0.15  # the same groups before and after: nothing of it is new


def test_explained_variance_matches_its_formula(day) -> None:
    found = explained_variance(day[0], "before", draws=20)
    c = found.correlations
    r = lambda a, b: np.corrcoef(c[a], c[b])[0, 1]  # noqa: E731
    te, tb, eb = r("experience", "after"), r("before", "after"), r("experience", "before")
    assert found.ev == pytest.approx((te - tb * eb) ** 2 / ((1 - tb**2) * (1 - eb**2)), rel=1e-6)
    assert found.rev == pytest.approx((eb - tb * te) ** 2 / ((1 - tb**2) * (1 - te**2)), rel=1e-6)


def test_templates_survive_the_disk(tmp_path, fitted) -> None:
    path = tmp_path / "templates.npz"
    fitted.save(path)
    again = Assemblies.load(path)
    assert np.array_equal(again.templates, fitted.templates) and again.members == fitted.members and again.during == fitted.during
    assert repr(again) == repr(fitted) and again.matched == fitted.matched and list(tmp_path.iterdir()) == [path]
    with pytest.raises(NotFoundError, match="no such file"):
        Assemblies.load(tmp_path / "absent.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FormatError, match="not a file of assemblies"):
        Assemblies.load(path)
    np.savez(path, x=np.ones(3))
    with pytest.raises(FormatError, match="not a file of assemblies"):
        Assemblies.load(path)


def test_templates_are_carried_to_the_next_day_by_unit(day, fitted) -> None:
    tomorrow, volleys = planted(1, active=((), (), (0, 1)))
    found = find_activations(tomorrow, fitted.carried_to(tomorrow))
    assert found.matched == [24, 24] and found.recording == "day0"
    truth = np.concatenate([volleys[g, 500.0] for g in (0, 1)])
    assert (np.abs(found.peak[:, None] - truth).min(0) < 0.02).mean() > 0.8
    # The same units under other ids, and in another order.
    s = tomorrow.spikes
    renamed = bm.Recording.from_arrays("r", spikes={"times": s.times, "unit": 100 - s.unit_id}, labels=EPOCHS)
    there = find_activations(renamed, fitted.carried_to(renamed, {k: 100 - k for k in range(24)}), threshold=25.0)
    found = find_activations(tomorrow, fitted, threshold=25.0)
    assert len(found) > 50 and np.allclose(there.peak, found.peak) and np.array_equal(there.assembly, found.assembly)


def test_templates_of_other_units_are_refused(day, fitted) -> None:
    few, _ = planted(2, units=24)
    few = bm.Recording.from_arrays("few", spikes={"times": few.spikes.times, "unit": few.spikes.unit_id + 8}, labels=EPOCHS)
    with pytest.raises(MissingDataError, match="16 of 24 units of day0 are in few"):
        fitted.carried_to(few)
    with pytest.raises(MissingDataError, match="carried_to"):
        find_activations(few, fitted)
    some = day[0].spikes.pick(np.arange(23))  # a unit that weighs little is lost
    fewer = bm.Recording.from_arrays("fewer", spikes=some, labels=EPOCHS)
    carried = fitted.carried_to(fewer)
    assert carried.matched == (23, 24) and np.allclose(np.linalg.norm(carried.templates, axis=1), 1, atol=1e-5)
    with pytest.raises(InputError, match="two units map to one"):
        fitted.carried_to(day[0], {k: min(k, 22) for k in range(24)})
    region = pd.DataFrame({"id": np.arange(24), "region": "CA1"})
    here = bm.Recording.from_arrays("h", spikes={"times": day[0].spikes.times, "unit": day[0].spikes.unit_id, "units": region}, labels=EPOCHS)
    there = bm.Recording.from_arrays(
        "t", spikes={"times": day[0].spikes.times, "unit": day[0].spikes.unit_id, "units": region.assign(region="PFC")}, labels=EPOCHS
    )
    with pytest.raises(InputError, match="PFC and was in CA1"):
        fit_assemblies(here).carried_to(there)


def test_equal_ids_of_another_animal_are_not_the_same_units(day, tmp_path) -> None:
    rat, other = (bm.Recording.from_arrays(f"{who}_day", who, "rat", spikes=day[0].spikes, labels=EPOCHS) for who in ("rat1", "rat2"))
    fit_assemblies(rat).save(tmp_path / "t.npz")
    fitted = Assemblies.load(tmp_path / "t.npz")
    assert fitted.subject == "rat1"
    with pytest.raises(InputError, match="templates are of rat1, rat2_day is of rat2"):
        fitted.carried_to(other)
    assert fitted.carried_to(other, {k: k for k in range(24)}).matched == (24, 24)
    assert fitted.carried_to(bm.Recording.from_arrays("unsaid", spikes=day[0].spikes, labels=EPOCHS)).matched == (24, 24)


def test_bad_input_is_an_error_that_names_it(day, fitted) -> None:
    rec = day[0]
    silent = bm.Recording.from_arrays("s", labels=EPOCHS)
    two = bm.Recording.from_arrays("two", spikes=rec.spikes.pick([0, 1]), labels=EPOCHS)
    for call, words in [
        (lambda: fit_assemblies(silent), "no spikes"),
        (lambda: fit_assemblies(two), "three or more"),
        (lambda: fit_assemblies(rec, bin_size=0.2), "expected 0.01 to 0.05 s"),
        (lambda: fit_assemblies(rec, method="nmf"), "expected 'ica' or 'pca'"),
        (lambda: fit_assemblies(rec, number=0), "whole number from 1 to 24"),
        (lambda: fit_assemblies(rec, "maze"), "no label 'maze'"),
        (lambda: fit_assemblies(rec, Intervals()), "empty"),
        (lambda: fit_assemblies(rec, Intervals([[0, 0.4]]), least_spikes=1, fastest=1e9), "more bins than units"),
        (lambda: fit_assemblies(rec, same="probe"), "no column 'probe'"),
        (lambda: find_activations(rec, fitted, false_rate=0), "expected a positive number"),
        (lambda: fitted.strength(rec, step=0.05), "at most the bin"),
        (lambda: explained_variance(rec, "run"), "overlap by 300.0 s"),
        (lambda: explained_variance(rec, Intervals([[0, 1]])), "five or more"),
        (lambda: template_strength(rec, fit_assemblies(planted(50, active=((), (), ()))[0], number=1), {"rest": "rest"}, draws=3), "3 draws"),
    ]:
        with pytest.raises(BrainmuError, match=words):
            call()


@pytest.mark.realdata
def test_assemblies_of_the_rats_run_are_not_stronger_in_its_rest_once_electrodes_are_told_apart(real_data) -> None:
    rec = bm.read(real_data / "rat-linear-track")
    naive = template_strength(rec, fit_assemblies(rec, same=""), {"rest": "rest"}, same="").set_index("assembly")
    found = template_strength(rec, fit_assemblies(rec), {"rest": "rest"}).set_index("assembly")
    # Pairs on one tetrode make the result: with them the dealt templates are far exceeded, without them they are not.
    assert naive.loc["all", "p_value"] < 0.01 and naive.loc["all", "z"] > 5
    assert found.loc["all", "p_value"] > 0.05


@pytest.mark.realdata
def test_assemblies_of_head_direction_cells_stay_together_in_sleep(real_data) -> None:
    from scipy.io import loadmat

    counts = loadmat(real_data / "mouse-hd-sleep-spikes" / "DataHDCells_RunSleep.mat")
    times, units, labels, start = [], [], {}, 0.0
    for name in ("Qrun", "Qrem", "Qsws"):
        q = counts[name][:90_000]  # 15 min of 10-ms bins
        bin_, unit = np.nonzero(q)
        n = q[bin_, unit]
        times.append(np.repeat(start + bin_ * 0.01, n) + np.random.default_rng(0).uniform(0, 0.01, n.sum()))
        units.append(np.repeat(unit, n))
        labels[name] = Intervals([[start, start + len(q) * 0.01]])
        start += len(q) * 0.01 + 1
    rec = bm.Recording.from_arrays("hd", spikes={"times": np.concatenate(times), "unit": np.concatenate(units)}, labels=labels)
    found = fit_assemblies(rec, "Qrun", bin_size=0.05, number="circular-shift", shifts=50)
    assert len(found) >= 2
    table = template_strength(rec, found, {"REM": "Qrem", "NREM": "Qsws"}, draws=300).set_index(["epoch", "assembly"])
    # Peyrache et al. (2015): the compass is the same, awake and asleep.
    assert table.loc[("REM", "all"), "p_value"] < 0.01 and table.loc[("NREM", "all"), "p_value"] < 0.01
