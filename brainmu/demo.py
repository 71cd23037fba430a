"""The whole chain in one call: on a synthetic recording, printing planted against found, or on recordings of your own.

Each step is the public function a user would call; what a step needs and does not find is said, never made up.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainmu.config import load_config
from brainmu.core import EventTable, Hypnogram, Recording, metrics
from brainmu.core.effect import jsonable
from brainmu.errors import BrainmuError, InputError, MissingDataError, OutputExistsError

__all__ = ["DemoConfig", "DemoResult", "demo"]

Progress = Callable[[str, float], None]

MARK = "demo.json"
"""The file that says a folder holds a demo, and may be replaced by another."""


@dataclass(frozen=True)
class DemoConfig:
    """Sizes of the demo.

    Attributes
    ----------
    animals : int
        Synthetic mice that the encoder and the stager learn from; one more is held out and analysed.
    train_hours, test_hours : float, h
    pretrain_steps, context_steps : int
        Of the window encoder and of the context encoder; steps, not minutes, so that the same seed gives the same weights.
    finetune_steps : int
        Of the stager.
    finetune_steps : int
    shuffles, null_sessions, null_shuffles : int
        Of the replay analysis.
    attribution_epochs, placebos, edited_events : int
        Of attribution and intervention.
    study_animals : int
    study_hours : float, h
        Of the randomised study (sleep and trials only, no signals).
    draws : int
        Of the randomisation test.
    """

    animals: int = 4
    train_hours: float = 1.0
    test_hours: float = 1.3
    pretrain_steps: int = 60
    context_steps: int = 40
    finetune_steps: int = 120
    shuffles: int = 500
    null_sessions: int = 40
    null_shuffles: int = 25
    attribution_epochs: int = 32
    placebos: int = 19
    edited_events: int = 60
    study_animals: int = 10
    study_hours: float = 4.0
    draws: int = 10_000


@dataclass
class DemoResult:
    """What the demo found.

    Attributes
    ----------
    folder : Path
    report : Path
    comparison : list of dict
        Rows quantity, planted, found, unit, ok (synthetic recording only).
    lacking : list of str
        What could not be done, and why.
    seconds : dict of float
        Wall time of each step, s.
    """

    folder: Path
    report: Path
    comparison: list[dict[str, Any]] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """Planted against found, for people."""
        rows = [("", "planted", "found", "")] + [
            (r["quantity"], _short(r["planted"]), f"{_short(r['found'])}{' ' + r['unit'] if r['unit'] else ''}", "ok" if r["ok"] else "MISSED")
            for r in self.comparison
        ]
        width = [max(len(r[i]) for r in rows) for i in range(4)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, width)).rstrip() for r in rows)


def demo(
    out: str | Path = "demo", data: list[Path] | None = None, *, quick: bool = False, manifest: Path | None = None, seed: int = 0, overwrite: bool = False,
    config: DemoConfig | None = None, progress: Progress | None = None,
) -> DemoResult:  # fmt: skip
    """Run the chain and write stores, results and ``report.html`` into `out`.

    Parameters
    ----------
    out : path
        A new folder, or one that an earlier demo made (with `overwrite`).
    data : list of path or None
        Recordings to analyse instead of a synthetic one.
    quick : bool
        Under a minute; smaller samples, rougher numbers.
    manifest : path or None
        A brainmu.yaml that lies elsewhere than in `data`.
    seed : int
    config : DemoConfig or None
        Sizes; the packaged ``demo/default`` or ``demo/quick`` where None.

    Raises
    ------
    OutputExistsError
        If `out` holds something else.
    """
    folder = Path(out)
    _prepare(folder, overwrite)
    c = config or load_config(DemoConfig, "demo/quick" if quick else "demo/default")
    chain = _Chain(folder, c, seed, progress or (lambda _label, _fraction: None))
    if data:
        chain.given(data, manifest)
    else:
        chain.synthetic()
    return chain.result


def _prepare(folder: Path, overwrite: bool) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / MARK).is_file():
            raise OutputExistsError(f"{folder}: exists and is not a demo's folder, so it is left alone: choose another --out")
        if not overwrite:
            raise OutputExistsError(f"{folder}: holds an earlier demo: pass --overwrite to replace it, or choose another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("{}", encoding="utf-8")


class _Chain:
    """The steps, in order, each timed; `shown` is what the report draws."""

    def __init__(self, folder: Path, config: DemoConfig, seed: int, progress: Progress) -> None:
        self.folder, self.c, self.seed, self.progress = folder, config, seed, progress
        self.result = DemoResult(folder, folder / "report.html")
        self.shown: list[tuple[str, Any]] = []

    @contextmanager
    def step(self, name: str, share: float) -> Iterator[None]:
        self.progress(name, share)
        began = time.perf_counter()
        yield
        self.result.seconds[name] = self.result.seconds.get(name, 0.0) + time.perf_counter() - began

    # -- a synthetic recording, whose answers are known -----------------------------------------------------------------
    def synthetic(self) -> None:
        import brainmu as bm
        from brainmu.synth.interventions import simulate_interventions
        from brainmu.train import PretrainConfig

        c, found = self.c, self.result.comparison
        with self.step("synthesise and preprocess", 0.0):
            pairs = bm.synth.corpus(c.animals, hours=c.train_hours, seed=self.seed + 1, n_channels=3, n_cells=20)
            recording, truth = bm.synth.recording(hours=c.test_hours, seed=self.seed, subject="mouse00", id="mouse00_day1")
            train = [bm.preprocess(r, self.folder / "stores" / f"{r.id}.zarr") for r, _ in pairs]
            session = bm.preprocess(recording, self.folder / "stores" / f"{recording.id}.zarr")
        self.shown.append(("", session))

        with self.step("pretrain", 0.12):
            training = load_config(PretrainConfig, "pretrain/tiny", steps=c.pretrain_steps, context_steps=c.context_steps)
            run = bm.pretrain(train, self.folder / "encoder", config=training, seed=self.seed)
            self.shown.append(("pretraining", self.folder / "encoder"))
        with self.step("stage", 0.35):
            stager = bm.SleepStager(
                stages="rodent3", epoch=4.0, encoder=run.path, mode="full", config={"steps": c.finetune_steps, "patience": 10}, seed=self.seed
            ).fit(train, labels="scoring")
            hypnogram, rules = stager.predict(session), bm.SleepStager(stages="rodent3", epoch=4.0, method="rules").predict(session)
            self._keep_hypnogram("stager", session, hypnogram)
            self._keep_hypnogram("rules", session, rules)
            found += _staging_rows(truth.hypnogram, hypnogram, rules)
        with self.step("events", 0.55):
            asleep = hypnogram.intervals("NREM")
            ripples = bm.find_events(session, kind="ripple", within=asleep, hypnogram=hypnogram, seed=self.seed)
            self._keep_events("ripples", session, ripples)
            found.append(_ripple_row(truth.ripples.within(asleep), ripples))
        with self.step("replay", 0.6):
            replay = bm.find_replay(
                session, run="run", rest="rest", shuffles=c.shuffles, null_sessions=c.null_sessions, null_shuffles=c.null_shuffles, seed=self.seed
            )
            self._keep_events("replay", session, replay)
            found += _replay_rows(truth.reactivation, replay)
        maps = self._try(
            session, "attribute", 0.72, lambda: bm.attribute(stager, session, target="REM", max_epochs=c.attribution_epochs, seed=self.seed)
        )  # fmt: skip
        if maps is not None:
            self._keep_map("REM", maps)
        found.append(_attribution_row(maps))
        delta = self._try(
            session, "intervene", 0.82,
            lambda: bm.intervene(stager, session, events=ripples, operation="remove", placebos=c.placebos, max_events=c.edited_events, seed=self.seed),
        )  # fmt: skip
        if delta is not None:
            self._keep_effect("intervention", delta)
        with self.step("effect", 0.9):
            study, planted = bm.synth.study(n_animals=c.study_animals, hours=c.study_hours, seed=self.seed)
            trial = bm.estimate_effect(study, exposure="trials", outcome="NREM->WAKE", design="trials", horizon=10.0, draws=c.draws, seed=self.seed)
            self._keep_effect("trials", trial)
            truth = simulate_interventions(planted.mechanism, planted.sleep, seed=self.seed, families=["trials"])["itt_risk_difference"]
            found.append(_effect_row("effect of randomised stimulation on NREM to WAKE within 10 s", truth.value, trial))
        self._report(f"brainmu demo: a synthetic mouse, {session.duration / 3600:.1f} h", found)

    # -- recordings of your own -----------------------------------------------------------------------------------------
    def given(self, data: list[Path], manifest: Path | None) -> None:
        import brainmu as bm

        recordings: list[Recording] = []
        with self.step("read", 0.0):
            for path in data:
                recordings += bm.formats.read_all(path, **({"manifest": manifest} if manifest else {}))
        for i, recording in enumerate(recordings):
            at = i / len(recordings)
            with self.step("preprocess", at):
                session = bm.preprocess(recording, self.folder / "stores" / f"{recording.id}.zarr")
            self.shown.append(("", session))
            self._analyse(session, at, 1 / len(recordings))
        names = ", ".join(r.id for r in recordings)
        self._report(f"brainmu demo: {names}" if len(names) < 80 else f"brainmu demo: {len(recordings)} recordings", [])

    def _analyse(self, session: Recording, at: float, share: float) -> None:
        """Everything the recording's modalities allow; the rest is said."""
        import brainmu as bm

        hypnogram = self._try(
            session, "staging", at + 0.3 * share, lambda: bm.SleepStager(stages="rodent3", epoch=4.0, method="rules").predict(session),
        )  # fmt: skip
        if hypnogram is not None:
            self._keep_hypnogram("rules", session, hypnogram)
        for kind in ("ripple", "burst", "spindle"):
            events = self._try(session, f"{kind}s", at + 0.5 * share, lambda k=kind: bm.find_events(session, kind=k, hypnogram=hypnogram, seed=self.seed))
            if events is not None:
                self._keep_events(f"{kind}s", session, events)
        c = self.c
        replay = self._try(
            session, "replay", at + 0.7 * share,
            lambda: bm.find_replay(session, shuffles=c.shuffles, null_sessions=c.null_sessions, null_shuffles=c.null_shuffles, seed=self.seed),
        )  # fmt: skip
        if replay is not None:
            self._keep_events("replay", session, replay)
        if isinstance(session.labels.get("trials"), EventTable):
            effect = self._try(
                session, "effect", at + 0.9 * share, lambda: bm.estimate_effect(session, exposure="trials", design="trials", horizon=10.0, draws=c.draws)
            )
            if effect is not None:
                self._keep_effect(f"{session.id}_trials", effect)
        else:
            self.result.lacking.append(f"{session.id}: no effect: there is no label 'trials' with a log of randomised stimulation")

    def _try(self, session: Recording, name: str, at: float, call: Callable[[], Any]) -> Any:
        """The result of a step, or None with its reason noted, where the recording lacks what the step needs."""
        try:
            with self.step(name, at):
                return call()
        except (MissingDataError, InputError) as error:
            self.result.lacking.append(f"no {name}: {error}")
        except BrainmuError as error:
            self.result.lacking.append(f"{name} failed: {error}")
        return None

    # -- results on disk and in the report --------------------------------------------------------------------------------
    def _keep_hypnogram(self, name: str, session: Recording, hypnogram: Hypnogram) -> None:
        from brainmu.sleep import write_hypnogram

        write_hypnogram(hypnogram, self.folder / f"{session.id}_{name}.tsv")
        self.shown.append((f"{session.id}_{name}", hypnogram))

    def _keep_events(self, name: str, session: Recording, events: EventTable) -> None:
        events.to_bids(self.folder / f"{session.id}_{name}_events.tsv")
        self.shown.append((f"{session.id}_{name}", events))

    def _keep_map(self, name: str, maps: Any) -> None:
        from brainmu.explain.files import save_map

        save_map(maps, self.folder / f"attribution_{name}.nc")
        self.shown.append((f"attribution of {name}", maps))

    def _keep_effect(self, name: str, effect: Any) -> None:
        (self.folder / f"effect_{name}.json").write_text(effect.to_json(indent=1), encoding="utf-8")
        self.shown.append((name, effect))

    def _report(self, title: str, comparison: list[dict[str, Any]]) -> None:
        import brainmu.report

        with self.step("report", 0.95):
            shown = [*self.shown, ("comparison", comparison)] if comparison else self.shown
            report = brainmu.report.compose_report(shown, title=title)
            if self.result.lacking:
                report.section("What was not done", "Each step says what it needed and did not find.")
                report.table([[s] for s in self.result.lacking], columns=["step and reason"])
            report.write(self.result.report, overwrite=True)
        summary = {
            "comparison": comparison,
            "lacking": self.result.lacking,
            "seconds": self.result.seconds,
            "seed": self.seed,
            "report": self.result.report.name,
        }
        (self.folder / MARK).write_text(json.dumps(jsonable(summary), indent=1), encoding="utf-8")


# -- planted against found ---------------------------------------------------------------------------------------------------
def _row(quantity: str, planted: Any, found: Any, ok: bool, unit: str = "", note: str = "") -> dict[str, Any]:
    return {"quantity": quantity, "planted": planted, "found": found, "unit": unit, "ok": bool(ok), "note": note}


def _staging_rows(truth: Hypnogram, stager: Hypnogram, rules: Hypnogram) -> list[dict[str, Any]]:
    rows = []
    for name, h in (("stager, unseen animal", stager), ("rules, no labels", rules)):
        m = metrics.confusion(truth.at(h.times + h.epoch / 2), h.codes, 3)
        kappa = metrics.cohen_kappa(m)
        rows.append(_row(f"sleep stages ({name}): kappa", 1.0, round(kappa, 3), kappa >= 0.8, note=f"n = {m.sum()} epochs, chance 0"))
    share = lambda h, s: round(100 * float(h.mask(s).mean()), 1)  # noqa: E731
    for s in ("NREM", "REM"):
        rows.append(_row(f"time in {s} (stager)", share(truth, s), share(stager, s), abs(share(truth, s) - share(stager, s)) < 3, "%"))
    return rows


def _ripple_row(planted: EventTable, found: EventTable) -> dict[str, Any]:
    loud = planted[planted.snr >= 3]
    hits = len({int(j) for _, j in found.match(loud, iou=0.1)})
    precision = len(found.match(planted, iou=0.1)) / len(found) if len(found) else float("nan")
    recall = hits / len(loud) if len(loud) else float("nan")
    note = f"{precision:.0%} of {len(found)} found are planted; {len(planted) - len(loud)} more were planted near the noise"
    return _row("ripples in NREM at 3 SD of the noise or more", len(loud), hits, recall >= 0.6 and precision >= 0.8, note=note)


def _replay_rows(planted: EventTable, found: EventTable) -> list[dict[str, Any]]:
    error = found.decoding_error
    rows = [
        _row(
            "decoding error while running", f"chance {error['chance']:.2g}", round(float(error["median"]), 3), error["median"] < 0.5 * error["chance"],
            error["unit"], note=f"{error['n_bins']} bins of 250 ms, {error['folds']} folds",
        )
    ]  # fmt: skip
    significant = found[found.p_value < 0.05] if len(found) else found
    context = np.asarray(planted.context, dtype=str)
    right = total = 0
    for e_start, e_stop, content in zip(significant.start, significant.stop, significant.content):
        overlap = np.minimum(planted.stop, e_stop) - np.maximum(planted.start, e_start)
        if len(overlap) and overlap.max() > 0:
            total += 1
            right += str(content) == context[int(overlap.argmax())]
    note = f"{total} of {len(significant)} events at p < 0.05 overlap a planted one; chance 50 %"
    share = 100 * right / total if total else float("nan")
    rows.append(_row("replayed track named rightly", 100.0, round(share, 1), share >= 75, "%", note))
    return rows


def _attribution_row(maps: Any) -> dict[str, Any]:
    """Whether the shares of the map sum to what they explain; the note says which streams have most of it.

    REM was planted in theta, muscle tone and firing alike, so no single stream is the right answer.
    """
    quantity = "attribution of REM: shares sum to the whole"
    if maps is None:
        return _row(quantity, 100.0, float("nan"), False, "%", "no epoch was taken for REM")
    total = {str(name): float(v.mean(v.dims[0]).sum()) for name, v in maps.data_vars.items()}
    top = ", ".join(f"{k} {v:+.2f}" for k, v in sorted(total.items(), key=lambda kv: -abs(kv[1]))[:3])
    note = f"log odds by stream: {top}; n = {maps.attrs['n_epochs']} epochs"
    error = float(maps.attrs["completeness_error"])
    return _row(quantity, 100.0, round(100 * (1 - error), 2), error <= 0.01, "%", note)


def _effect_row(quantity: str, planted: float, effect: Any) -> dict[str, Any]:
    note = f"95 % interval {effect.low:+.3f} to {effect.high:+.3f}, p = {effect.p_value:.2g}, {effect.n_units} animals, {effect.n_events} trials"
    return _row(quantity, round(planted, 3), round(effect.estimate, 3), effect.low <= planted <= effect.high, effect.unit, note)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
