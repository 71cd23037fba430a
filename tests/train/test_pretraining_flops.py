"""Counted operations against torch's own counter, and device peaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from brainmu.core import Recording
from brainmu.models import Encoder, EncoderConfig
from brainmu.train.flops import PEAKS, context_flops, peak_flops, window_flops
from brainmu.train.objectives import MaskConfig, draw_masks, gist_counts, gist_losses, losses
from brainmu.train.tasks import ContextTask, WindowTask, hidden_counts
from brainmu.windows import WindowGrid, collate


def recording(seed: int, channels=3, units=9, position=True, features=False) -> Recording:
    rng = np.random.default_rng(seed)
    signals = {"lfp": dict(values=rng.standard_normal((12_000, channels)), rate=100.0, kind="lfp")}
    if position:
        signals["position"] = dict(values=np.cumsum(rng.standard_normal((3600, 2)), 0), rate=30.0, kind="position")
    if features:
        signals["bands"] = dict(values=rng.standard_normal((30, 20)), rate=0.25, kind="features")
    spikes = dict(times=np.sort(rng.uniform(0, 120, 2000)), unit=rng.integers(0, units, 2000)) if units else None
    return Recording.from_arrays(f"r{seed}", "m", signals=signals, spikes=spikes)


def batch(*recordings: Recording):
    return collate([WindowGrid(r).batch(slice(0, 12), i) for i, r in enumerate(recordings)])


def task(width: int) -> WindowTask:
    return WindowTask(Encoder(EncoderConfig(width=width, heads=2, latents=8, window_layers=3)), MaskConfig(), ["a"] * 3, 10, 1e-3, 0.05, 0)


def counted(model: WindowTask, b) -> int:
    """Operations of a step as torch counts them."""
    hidden = draw_masks(b, MaskConfig(), np.random.default_rng(0))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sum(model.parts(b, hidden).values()).backward()
    return counter.get_total_flops()


class TestFlops:
    @pytest.mark.parametrize("width", [32, 128])
    def test_a_step_of_windows_is_counted_within_ten_percent(self, width):
        torch.manual_seed(0)
        b = batch(recording(0), recording(1, units=30), recording(2))
        assert window_flops(task(width).window, b) == pytest.approx(counted(task(width), b), rel=0.1)

    def test_padding_is_no_work(self):
        b = batch(recording(0), recording(1, channels=2, units=0, features=True), recording(2, units=30, position=False))
        model = task(64)
        assert 0.5 * counted(model, b) < window_flops(model.window, b) < counted(model, b)

    def test_a_step_of_context_is_counted_within_ten_percent(self):
        torch.manual_seed(0)
        # torch's counter takes the weights' gradient of a depthwise convolution for that of a full one: a kernel of one keeps that small.
        task = ContextTask(Encoder(EncoderConfig(width=64, heads=4, context_layers=3, kernel=1)), 4.0, 10, 1e-3, 0.05, 0)
        x = torch.randn(2, 100, 64)
        hidden = torch.rand(2, 100) < 0.3
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            everywhere = torch.ones(2, 100, dtype=torch.bool)
            task(x, everywhere, hidden, everywhere, torch.arange(100, dtype=torch.float64)[None] * 4).backward()
        # Spans with fewer hidden windows than others are padded, which is no work.
        heard, asked = float((~hidden).sum()) / 2, float(hidden.sum()) / 2
        assert context_flops(task.context, 2, 100, heard, asked) == pytest.approx(counter.get_total_flops(), rel=0.1)

    def test_peaks(self, monkeypatch):
        assert peak_flops(torch.device("cpu")) is None
        names = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA A100-SXM4-40GB": 312e12, "NVIDIA RTX A1000": None}
        # Every entry must be found by its own name: none may hide behind a shorter one.
        for name, peak in {**names, **dict(PEAKS)}.items():
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
            assert peak_flops(torch.device("cuda")) == peak


def test_counts_of_what_is_hidden_weigh_the_halves_of_a_batch_into_the_whole():
    """The mean of each half, weighed by its count, is the mean of all: what several processes rest on."""
    torch.manual_seed(0)
    parts = [batch(recording(i, features=i == 1)) for i in range(2)]
    whole = batch(*(recording(i, features=i == 1) for i in range(2)))
    task = WindowTask(Encoder(EncoderConfig(width=32, heads=2, dropout=0.0)), MaskConfig(), ["a"] * 2, 10, 1e-3, 0.05, 0).eval()
    hidden = draw_masks(whole, MaskConfig(), np.random.default_rng(0))
    n = len(parts[0].streams)
    shares = [hidden[:n], hidden[n:]]
    with torch.no_grad():
        made = [losses(b, h, task.reconstruction(b, task.window(b, h)[0], task.window, h)) for b, h in zip(parts, shares)]
        found = losses(whole, hidden, task.reconstruction(whole, task.window(whole, hidden)[0], task.window, hidden))
        told = [gist_losses(b, task.gist(b, task.summarise(task.window(b, h)[0].flatten(1)))) for b, h in zip(parts, shares)]
        gist_of_all = gist_losses(whole, task.gist(whole, task.summarise(task.window(whole, hidden)[0].flatten(1))))
    for halves, counts, all_of_it in (
        (made, [hidden_counts(b, h) for b, h in zip(parts, shares)], found), (told, [gist_counts(b) for b in parts], gist_of_all),
    ):  # fmt: skip
        for target, value in all_of_it.items():
            total = sum(float(m[target] * c[target]) for m, c in zip(halves, counts) if target in m)
            assert total / sum(float(c[target]) for c in counts if target in c) == pytest.approx(float(value), rel=1e-5)
