"""A real mouse through interventions and attribution: spikes and ripples of a Neurosuite folder, with the packaged stage model."""

import numpy as np
import pytest

import brainmu as bm
from brainmu.explain.asking import ask


@pytest.mark.realdata
def test_spikes_of_real_ripples_are_edited_and_a_map_is_judged(real_data):
    session, model = bm.read(real_data / "mouse-hd-neurosuite"), bm.load("brainmu-tiny-rodent3")
    name = next(k for k, v in session.labels.items() if isinstance(v, bm.EventTable))
    answer = ask(model, session)
    source = answer.stages[int(np.bincount(np.nan_to_num(answer.proba).argmax(1)).argmax())]
    aim = next(s for s in answer.stages if s != source)
    for operation in ("remove", "permute"):
        effect = bm.intervene(model, session, name, operation, what="spikes", outcome=f"{source}->{aim}", placebos=2, max_events=10)
        assert effect.level == "model" and np.isfinite(effect.estimate) and effect.diagnostics["spikes_removed_median"] > 0
        assert effect.diagnostics["leakage"]["edited_streams_read"] == ["spikes"] and any("causal" in w for w in effect.diagnostics["warnings"])
    maps = bm.attribute(model, session, source, max_epochs=4, method="feature_ablation")
    assert maps["spikes"].sizes["unit"] == session.spikes.n_units and maps.attrs["verdict"].startswith(("passed", "failed: "))
