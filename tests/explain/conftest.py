"""A stage model that learned nothing: quick to make, and every path through it is the real one."""

import numpy as np
import pytest

from brainmu.core import EventTable, Recording

RATE = 625.0


def noisy(seed, minutes=6, subject=None):
    """Noise with 180 Hz events in which units 0-2 fire, every 16 to 40 s, of content A and B in turn."""
    rng = np.random.default_rng(seed)
    stop = minutes * 60.0
    at = np.cumsum(rng.uniform(16, 40, 200))
    at = at[at < stop - 20]
    t = np.arange(int(stop * RATE)) / RATE
    x = rng.standard_normal((len(t), 2)).astype(np.float32) * 10
    times, units = [rng.uniform(0, stop, int(10 * stop))], [rng.integers(0, 6, int(10 * stop))]
    for a in at:
        i = slice(int(a * RATE), int((a + 0.15) * RATE))
        x[i] += (60 * np.sin(2 * np.pi * 180 * t[i]))[:, None].astype(np.float32)
        times.append(rng.uniform(a, a + 0.15, 15))
        units.append(rng.integers(0, 3, 15))
    signals = {
        "lfp": dict(values=x, rate=RATE, unit="uV", kind="lfp", channels=["a", "b"]),
        "emg": dict(values=rng.standard_normal((len(t), 1)).astype(np.float32), rate=RATE, unit="uV", kind="emg"),
    }
    events = EventTable(at, at + 0.15, content=np.array(["A", "B"] * 100)[: len(at)], kind="ripple")
    return Recording.from_arrays(
        f"r{seed}", subject or f"m{seed}", signals=signals, spikes=dict(times=np.concatenate(times), unit=np.concatenate(units)), labels={"ripples": events}
    )


@pytest.fixture(scope="session")
def untrained():
    """A causal stage model with random weights that takes every epoch for NREM, more or less surely."""
    import torch

    from brainmu.models.encoder import Encoder, EncoderConfig
    from brainmu.models.stage_model import StageConfig, StageModel

    torch.manual_seed(0)
    model = StageModel(StageConfig(), Encoder(EncoderConfig(width=32, heads=2, latents=4, window_layers=1, context_layers=1, causal=True)))
    with torch.no_grad():
        model.head[-1].bias += torch.tensor([0.0, 4.0, -4.0])
    return model.eval()


@pytest.fixture(scope="session")
def sessions():
    """Three short recordings of two animals."""
    return [noisy(1), noisy(2, subject="m1"), noisy(3)]


@pytest.fixture(scope="session")
def decided(untrained):
    """The same weights with a head that varies: epochs of three stages, and log odds that depend on the input."""
    import copy

    import torch

    model = copy.deepcopy(untrained)
    with torch.no_grad():
        model.head[-1].weight.mul_(20)
    return model.eval()
