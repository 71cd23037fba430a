"""The picture of two scorings marks what differs and counts as the scores do."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import Hypnogram
from brainmu.errors import InputError
from brainmu.report.figures import disagreement_figure
from brainmu.sleep import evaluate


def _pair(seed: int, errs: float = 0.1) -> tuple[Hypnogram, Hypnogram]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 3, 30), 10)
    proba = np.full((300, 3), 0.1)
    told = np.where(rng.random(300) < errs, (truth + 1) % 3, truth)
    proba[np.arange(300), told] = 0.8
    truth[50:55] = -2
    return Hypnogram(truth, "rodent3", 4.0), Hypnogram(told, "rodent3", 4.0, proba=proba)


def test_marks_lie_where_the_scorings_differ():
    reference, hypnogram = _pair(0)
    fig = disagreement_figure([("m1", reference, hypnogram)])
    scores = evaluate(hypnogram, reference, draws=0)
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    differ = int(scores["n"] * (1 - scores["accuracy"]) + 0.5)
    assert titles[0] == f"m1: κ {scores['kappa']:.2f}, {differ} of {scores['n']} epochs differ"
    marks = [p.get_extents() for p in fig.axes[1].collections[0].get_paths()]
    assert sum(m.width for m in marks) == pytest.approx(4.0 * differ)
    texts = [t.get_text() for t in fig.axes[3].texts]
    assert f"\n{scores['confusion'][2][2]}" in texts[4]  # REM stands second from the top
    assert titles[-1].startswith("calibration: ECE")


def test_the_least_alike_are_shown_and_all_are_counted():
    pairs = [(f"m{k}", *_pair(k, errs=0.02 + 0.05 * k)) for k in range(6)]
    fig = disagreement_figure(pairs, ("expert", "rules"))
    drawn = [ax.get_title(loc="left").split(":")[0] for ax in fig.axes if "epochs differ" in ax.get_title(loc="left")]
    assert len(drawn) == 4 and drawn[0] == "m5" and "m0" not in drawn
    assert "6 recordings" in fig.axes[12].get_title(loc="left")


def test_mixed_stage_sets_and_nothing_in_common():
    reference, hypnogram = _pair(0)
    bare = Hypnogram(hypnogram.codes, "rodent3", 4.0)
    assert "no probabilities" in disagreement_figure([("m", reference, bare)]).axes[-1].texts[0].get_text()
    people = Hypnogram(np.zeros(10, int), "aasm5", 30.0)
    with pytest.raises(InputError, match="mix stage sets"):
        disagreement_figure([("m", reference, bare), ("p", people, people)])
    with pytest.raises(InputError, match="share no scored epoch"):
        disagreement_figure([("m", reference, Hypnogram(bare.codes, "rodent3", 4.0, start=1e5))])
    with pytest.raises(InputError, match="no scorings"):
        disagreement_figure([])
