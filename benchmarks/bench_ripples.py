"""Ripples: false detections in noise, planted ripples among distractors, recall against amplitude, speed; beside ripple_detection.

Run: python benchmarks/bench_ripples.py [--seeds N] [--hours H] [--quick]
The peer is used if it is installed (pip install "brainmu[replay]"); otherwise its rows say so.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

import brainmu as bm

RATE = 1500.0
AMPLITUDES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def noise(seconds: float, seed: int, exponent: float = 1.0, channels: int = 4, shared: float = 0.5, rate: float = RATE) -> np.ndarray:
    """Gaussian noise (time, channel), power ~ 1/f**exponent, SD 100 uV; `shared` of the power is common to the channels."""
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    f = np.fft.rfftfreq(n, 1 / rate)
    shape = np.maximum(f, 0.5) ** (-exponent / 2)
    own = np.fft.irfft(np.fft.rfft(rng.normal(size=(n, channels)), axis=0) * shape[:, None], n, axis=0)
    common = np.fft.irfft(np.fft.rfft(rng.normal(size=n)) * shape, n)[:, None]
    x = np.sqrt(1 - shared) * own + np.sqrt(shared) * common
    return 100 * x / x.std()


def planted(seconds: float, seed: int, per_minute: float = 20.0, amplitude: tuple[float, float] = (2.0, 6.0), rate: float = RATE):
    """Coloured noise with ripples, high-gamma bursts, muscle bursts, transients and hum: (values, events (n, 2), amplitude (n,)).

    A ripple's amplitude is its peak over the SD of the noise between 150 and 250 Hz; its span is where its envelope exceeds a tenth.
    """
    rng = np.random.default_rng(seed + 10_000)
    x = noise(seconds, seed, exponent=rng.uniform(1.0, 2.0), shared=rng.uniform(0.2, 0.7), rate=rate)
    n, channels = x.shape
    t = np.arange(n) / rate
    f = np.fft.rfftfreq(n, 1 / rate)

    def sd(low: float, high: float) -> float:
        spectrum = np.fft.rfft(x[:, 0])
        return float(np.fft.irfft(np.where((f >= low) & (f <= high), spectrum, 0), n).std())

    ripple, gamma, muscle = sd(150, 250), sd(70, 140), sd(100, 500)
    n_ripples = int(seconds / 60 * per_minute)
    starts = np.sort(rng.choice(np.arange(1, int(seconds * 2) - 2), n_ripples, replace=False)) / 2 + rng.uniform(0, 0.2, n_ripples)
    size = rng.uniform(*amplitude, n_ripples)
    spans = []
    for at, a in zip(starts, size):
        length = rng.uniform(0.03, 0.12)
        spans.append((at, at + length))
        _add(x, t, rate, at + length / 2, length / np.sqrt(8 * np.log(10)), a * ripple, rng.uniform(160, 220), rng.uniform(0.6, 1.2, channels), rng)
    for _ in range(int(seconds / 60 * 15)):  # high gamma
        middle, wide, high = rng.uniform(1, seconds - 1), rng.uniform(0.02, 0.06), rng.uniform(3, 7) * gamma
        _add(x, t, rate, middle, wide, high, rng.uniform(80, 120), rng.uniform(0.6, 1.2, channels), rng)
    for _ in range(int(seconds / 60 * 4)):  # muscle: broad band, 0.1-1 s
        m, length = rng.uniform(2, seconds - 2), rng.uniform(0.1, 1.0)
        i, j = int((m - length / 2) * rate), int((m + length / 2) * rate)
        burst = np.diff(rng.normal(size=j - i + 1)) * muscle * rng.uniform(2, 6) * np.hanning(j - i)
        x[i:j] += burst[:, None] * rng.uniform(0.8, 1.2, channels)
    for _ in range(int(seconds / 60 * 4)):  # transients: a step that decays
        i = int(rng.uniform(1, seconds - 1) * rate)
        x[i : i + 150] += (rng.choice([-1, 1]) * rng.uniform(3, 10) * 100 * np.exp(-np.arange(min(150, n - i)) / rng.uniform(2, 30)))[:, None]
    for k in range(1, 6):  # hum with its harmonics
        x += 30 / k * np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 6))[:, None] * rng.uniform(0.5, 1.5, channels)
    return x.astype(np.float32), np.array(spans), size


def _add(x, t, rate, middle, sd, height, frequency, gains, rng) -> None:
    """A sine of `frequency` under a Gaussian of `sd` s."""
    i, j = max(int((middle - 4 * sd) * rate), 0), min(int((middle + 4 * sd) * rate), len(x))
    u = t[i:j] - middle
    x[i:j] += (height * np.exp(-(u**2) / 2 / sd**2) * np.cos(2 * np.pi * frequency * u + rng.uniform(0, 6)))[:, None] * gains


def recording(values: np.ndarray, rate: float = RATE) -> bm.Recording:
    return bm.Recording.from_arrays("bench", signals={"lfp": {"values": values, "rate": rate, "unit": "uV", "kind": "lfp"}})


def ours(values: np.ndarray) -> np.ndarray:
    found = bm.find_events(recording(values), kind="ripple")
    return np.c_[found.start, found.stop]


def peers() -> dict[str, object]:
    try:
        import ripple_detection as rd
    except ImportError:
        return {}

    def run(name: str, **settings):
        def detect(values: np.ndarray, **more) -> np.ndarray:
            t = np.arange(len(values)) / RATE
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                filtered = rd.filter_ripple_band(values, RATE)
                found = getattr(rd, name)(t, filtered, np.zeros(len(t)), RATE, **settings, **more)
            return found[["start_time", "end_time"]].to_numpy()

        return detect

    return {name: run(name) for name in ("Kay_ripple_detector", "Karlsson_ripple_detector", "Roumis_ripple_detector")}


def scored(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """One-to-one at IoU 0.2; a detection longer than three times what it matches counts as wrong."""
    from brainmu.core.events import match_events

    pairs = match_events(found, truth, 0.2)
    length = lambda e: e[:, 1] - e[:, 0]  # noqa: E731
    fits = length(found)[pairs[:, 0]] <= 3 * length(truth)[pairs[:, 1]] if len(pairs) else np.zeros(0, bool)
    return {"f1": 2 * fits.sum() / max(len(found) + len(truth), 1), "recall": fits.sum() / len(truth), "precision": fits.sum() / max(len(found), 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="one seed, a quarter of an hour for the speed")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.hours = 1, 0.25
    methods = {"brainmu": ours} | peers()
    if len(methods) == 1:
        print('ripple_detection is not installed: pip install "brainmu[replay]" to see its rows')
    seeds = range(args.seeds)
    for name, run in methods.items():
        white = [len(run(noise(600, s, 0.0, shared=0.0))) for s in seeds]
        pink = [len(run(noise(600, s, 1.0))) for s in seeds]
        score = [scored(run(x), e) for x, e, _ in (planted(600, 100 + s) for s in seeds)]
        mean = {k: np.mean([v[k] for v in score]).round(3) for k in score[0]}
        print(f"{name:26s} events in 10 min of white noise {white}, pink {pink}; planted, defaults: {mean}")
        if name != "brainmu":
            level = next(
                (z for z in np.arange(2.0, 8.1, 0.25) if np.mean([len(run(noise(600, s, 0.0, shared=0.0), zscore_threshold=z)) for s in seeds]) < 5), 8.0
            )
            score = [scored(run(x, zscore_threshold=level), e) for x, e, _ in (planted(600, 100 + s) for s in seeds)]
            print(f"{'':26s} threshold raised to z = {level} (< 5 in white noise): F1 {np.mean([v['f1'] for v in score]):.3f}")
    alone = [bm.find_events(recording(noise(600, s, 1.0)), kind="ripple", per_channel=True) for s in seeds]
    counts = [[int((f.channel == c).sum()) for c in f.channels] for f in alone]
    print(f"{'brainmu, a channel alone':26s} events in 10 min of pink noise, by channel {counts}")
    print("recall against amplitude (peak over the SD of the band):")
    for name, run in methods.items():
        curve = [np.mean([scored(run(x), e)["recall"] for x, e, _ in (planted(300, 200 + s, amplitude=(a, a)) for s in seeds)]) for a in AMPLITUDES]
        print(f"{name:26s} " + "  ".join(f"{a:g}: {r:.2f}" for a, r in zip(AMPLITUDES, curve)))
    print("speed, 4 channels at 1,500 Hz, warm:")
    x = noise(3600 * args.hours, 0).astype(np.float32)
    for name, run in methods.items():
        run(x[: int(60 * RATE)])
        t = time.perf_counter()
        run(x)
        seconds = time.perf_counter() - t
        print(f"{name:26s} {args.hours / seconds:.2f} h/s ({seconds:.2f} s for {args.hours:g} h)")


if __name__ == "__main__":
    main()
