"""One sleep stager for EEG, LFP, EMG, EOG, spikes or feature streams: fit, predict, score, save."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.hypnogram import STAGE_SETS, UNSCORED, Hypnogram
from brainmu.core.recording import Recording, as_list
from brainmu.errors import CheckpointError, InputError, OutputExistsError

if TYPE_CHECKING:
    from brainmu.models import StageModel
    from brainmu.sleep.decoding import Decoding
    from brainmu.sleep.features import Table
    from brainmu.sleep.few_labels import Calibration

__all__ = ["SleepStager"]

METHODS = ("boosting", "combined", "encoder", "rules")
FORMAT = 1
Progress = Callable[[str, float], None]


class SleepStager:
    """Stages sleep: fit on labelled recordings and predict others, or stage rodents by rules without any labels.

    Parameters
    ----------
    stages : {"aasm5", "rodent3"}
        W N1 N2 N3 R, or WAKE NREM REM.
    epoch : float or None, s
        1 to 60; None is 30 for aasm5 and 4 for rodent3.
    method : {"boosting", "combined", "encoder", "rules"} or None
        ``boosting``: trees on spectral and complexity features with their surround. ``combined``: these trees and a recurrent network over the whole
        recording, weighed by held-out subjects (three or more). ``encoder``: a head on brainmu's transformer. ``rules``: rodents, no labels.
        None is ``encoder`` where an encoder is given, otherwise ``combined`` from six subjects on and ``boosting`` below.
    encoder : str, Path or None
        A pretrained encoder (folder or packaged name) for ``method="encoder"``.
    config : mapping, str, Path or None
        Settings of that fine-tuning (:class:`brainmu.train.FinetuneConfig`): a mapping, a file or a packaged name.
    mode : {"probe", "adapters", "context", "full"} or None
        What of the encoder is trained; None is "context" with a pretrained encoder and "full" without.
    duration : bool
        Decode with the transitions and durations of the training hypnograms, as far as that helps held-out subjects (``encoder``: from four
        subjects on). Off for anything that serves as a causal outcome.
    causal : bool
        Use nothing after an epoch: only the past as context and as the recording's scale (so the first five minutes stay unscored), no decoding. Not for
        rules; with an encoder the scale is still that of the whole recording. ``attrs["scale"]`` of a hypnogram says which.
    confidence : float
        ``predict(abstain=True)`` leaves epochs below this probability unscored.
    seed : int

    Attributes
    ----------
    method_ : str
        What was fitted.
    model_ : BoostedStager, CombinedStager or StageModel
    calibration_ : Calibration or None
        What :meth:`calibrate` adds for one animal.
    classes_ : tuple of str
    n_subjects_, n_epochs_, subjects_ : int, int, tuple of str
        What it was fitted on (labelled epochs that hold data, names of subjects); 0 and none where a stage model was taken as it is.

    Examples
    --------
    >>> SleepStager(stages="rodent3", epoch=4.0, method="rules")
    SleepStager(stages='rodent3', epoch=4.0, method='rules')
    """

    def __init__(
        self, stages: str = "aasm5", epoch: float | None = None, method: str | None = None, encoder: str | Path | None = None, *, mode: str | None = None,
        duration: bool = True, causal: bool = False, confidence: float = 0.6, config: Any = None, seed: int = 0,
    ) -> None:  # fmt: skip
        if stages not in STAGE_SETS:
            raise InputError(f"stages is {stages!r}, expected one of {', '.join(STAGE_SETS)}")
        if method is not None and method not in METHODS:
            raise InputError(f"method is {method!r}, expected one of {', '.join(METHODS)} (or None)")
        epoch = (30.0 if stages == "aasm5" else 4.0) if epoch is None else float(epoch)
        if not 1.0 <= epoch <= 60.0:
            raise InputError(f"epoch is {epoch:g} s, expected 1 to 60 s (30 for people, 4 for rodents)")
        if method == "rules" and stages != "rodent3":
            raise InputError("method='rules' stages rodents: pass stages='rodent3', or fit a stager on labelled nights")
        if method == "rules" and not 1.0 <= epoch <= 10.0:
            raise InputError(f"rules stage epochs of 1 to 10 s, got {epoch:g} s")
        if method == "rules" and causal:
            raise InputError("rules split the histograms of the whole recording, so they cannot be causal: leave causal out, or fit a stager with causal=True")
        if encoder is not None and method not in (None, "encoder"):
            raise InputError(f"an encoder was given with method={method!r}, which does not use one: leave method out or pass 'encoder'")
        if not 0 <= confidence <= 1:
            raise InputError(f"confidence is {confidence:g}, expected a probability")
        self.stages, self.epoch, self.method, self.encoder, self.mode = stages, epoch, method, encoder, mode
        self.duration, self.causal, self.confidence, self.config, self.seed = duration, causal, confidence, config, seed
        self.calibration_: Calibration | None = None
        self.decoding_: Decoding | None = None
        self.subjects_: tuple[str, ...] = ()
        if method == "rules":
            self.method_, self.classes_ = "rules", STAGE_SETS[stages]

    # -- scikit-learn manners ---------------------------------------------------------------------------------------
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments it was made with."""
        return {n: getattr(self, n) for n in ("stages", "epoch", "method", "encoder", "mode", "duration", "causal", "confidence", "config", "seed")}

    def set_params(self, **params: Any) -> SleepStager:
        """Change arguments; an unfitted stager."""
        self.__init__(**(self.get_params() | params))  # type: ignore[misc]
        return self

    def __repr__(self) -> str:
        default = {"encoder": None, "mode": None, "duration": True, "causal": False, "confidence": 0.6, "config": None, "seed": 0, "method": None}
        shown = [f"{k}={v!r}" for k, v in self.get_params().items() if k not in default or v != default[k]]
        return f"SleepStager({', '.join(shown)})"

    def fit(self, sessions: Recording | Iterable[Recording], labels: str | None = None, progress: Progress | None = None) -> SleepStager:
        """Fit to recordings with a hypnogram.

        Parameters
        ----------
        sessions : Recording, Session, or many
        labels : str or None
            Name of the hypnogram; None takes the only one.

        Raises
        ------
        MissingDataError
            If a recording has no such hypnogram or nothing to stage from.
        InputError
            If the labels' stage set cannot become the stager's.

        Warns
        -----
        UserWarning
            If several recordings name no subject: each then counts as a subject of its own.
        """
        recordings = as_list(sessions)
        if not recordings:
            raise InputError("fit got no recordings, expected at least one with a hypnogram")
        hypnograms = [self._reference(r, labels) for r in recordings]
        _warn_of_unnamed(recordings)
        self.classes_ = STAGE_SETS[self.stages]
        self.subjects_ = tuple(sorted({r.subject or r.id for r in recordings}))
        self.n_subjects_ = len(self.subjects_)
        self.method_ = self.method or self._usual_method()
        self.calibration_ = self.decoding_ = None
        if self.method_ in ("boosting", "combined"):
            self._fit_on_tables(recordings, hypnograms, progress)
        elif self.method_ == "encoder":
            self._fit_encoder(recordings, hypnograms, labels, progress)
        return self

    def predict(self, session: Recording, abstain: bool | float = False, *, start: float | None = None, progress: Progress | None = None) -> Hypnogram:
        """A hypnogram with probabilities.

        Parameters
        ----------
        session : Recording or Session
        abstain : bool or float
            True leaves epochs unscored whose most probable stage has less than `confidence`; a share (0.05) leaves that share of the epochs
            unscored, the least certain ones.
        start : float or None, s
            Where the first epoch begins; the start of the signals where not given.

        Returns
        -------
        Hypnogram
            ``attrs``: method, centred (whether epochs used their future), expected_error (share of the scored epochs that are wrong if the
            probabilities are right), abstained (share left unscored, where asked for), reasons (for doubt), and for rules quality.
        """
        from brainmu.sleep.reliability import abstain_from, doubts
        from brainmu.sleep.sites import unlike_stages

        if not isinstance(session, Recording):
            raise InputError(f"predict takes one recording, got a {type(session).__name__}: call it for each")
        share = None if isinstance(abstain, (bool, np.bool_)) else abstain
        if share is not None and not (isinstance(share, (int, float, np.number)) and 0 <= share < 1):
            raise InputError(f"abstain is {share!r}, expected True, False or a share of the epochs from 0 to below 1 (0.05 leaves the least certain 5 %)")
        if self._fitted() == "rules":
            h = self._by_rules(session, start, progress)
        else:
            p, first = self._probabilities(session, start, progress)
            attrs = {"method": self.method_, "centred": not self.causal, "scale": "past" if self._running() else "whole recording"}
            h = Hypnogram(_likeliest(p), self.stages, self.epoch, first, p.astype(np.float32), scorer=f"brainmu {self.method_}", attrs=attrs)
            h.attrs["reasons"] = doubts(h) + unlike_stages(session, self.stages)
        if self.calibration_ is not None:
            h.attrs["calibration"] = self.calibration_.note
            h.attrs["reasons"] = h.attrs["reasons"] + self.calibration_.doubts
        assert h.proba is not None
        sure = np.nan_to_num(h.proba).max(axis=1)
        if share is not None or abstain:
            abstain_from(h, sure, self.confidence, share)
        h.attrs["expected_error"] = float(1 - sure[h.codes >= 0].mean()) if (h.codes >= 0).any() else float("nan")
        return h

    def calibrate(self, session: Recording, labels: str | None = None, *, minutes: float | None = None) -> SleepStager:
        """A stager for one animal or person, from this one and a few labelled minutes of it; this one stays as it is.

        Parameters
        ----------
        session : Recording or Session
            Of that animal. Its own scale and features are taken from all of it, labels from where it is scored.
        labels : str or None
            Name of its hypnogram; None takes the only one.
        minutes : float or None
            Use the first so many scored minutes; None uses all that is scored.

        Returns
        -------
        SleepStager
            ``calibration_.note`` says what was changed, or why nothing was. It is for that animal: calibrate this stager anew for another.

        Raises
        ------
        MissingDataError
            With fewer than 20 labelled epochs that hold data, or all of them outside the recording.

        Notes
        -----
        Added to the stager's log probabilities are a bias a stage and weights of the animal's features, held by a ridge. Strength, and whether anything
        is changed at all, are decided on labelled blocks left out in turn. Stages that the minutes do not hold keep their probability. Labels that are at
        odds with the stager, with each other or with the times of the recording are doubted in ``calibration_.doubts`` and ``attrs["reasons"]``.
        """
        import copy

        from brainmu.sleep.few_labels import Calibration, labels_on

        self._fitted()
        if minutes is not None and not minutes > 0:
            raise InputError(f"minutes is {minutes:g}, expected a positive number of scored minutes to use")
        h = self._reference(session, labels)
        out = copy.copy(self)
        out.calibration_ = None
        p, first = out._evidence(session, _aligned(h, session, self.epoch), None)
        codes, doubts = labels_on(h, first, len(p), self.epoch, minutes)
        out.calibration_ = Calibration.fit(self._table(session, first).resized(len(p)), p, codes)
        out.calibration_.doubts += doubts
        return out

    def predict_proba(self, session: Recording) -> NDArray[np.float32]:
        """Probability (epoch, stage) of each stage, in the order of `classes_`; NaN where the recording is missing."""
        h = self.predict(session)
        assert h.proba is not None
        return h.proba

    def score(self, sessions: Recording | Iterable[Recording], labels: str | None = None) -> float:
        """Cohen's kappa, the mean over subjects. `brainmu.sleep.evaluate_many` gives the rest, with intervals."""
        from brainmu.sleep.agreement import evaluate_many

        recordings = as_list(sessions)
        pairs = [(r.subject or r.id, self.predict(r), self._reference(r, labels)) for r in recordings]
        return float(evaluate_many(pairs)["kappa_subjects"])

    # -- parts ------------------------------------------------------------------------------------------------------
    def _fitted(self) -> str:
        if not hasattr(self, "method_"):
            raise InputError("the stager is not fitted: call fit(sessions, labels=...) first, or use method='rules' for rodents")
        return self.method_

    def _reference(self, recording: Recording, labels: str | None) -> Hypnogram:
        """The recording's hypnogram in the stager's stages."""
        h = recording.hypnogram(labels)
        if h.stage_set == self.stages:
            return h
        if self.stages == "rodent3":
            return h.as_rodent3()
        raise InputError(f"{recording.id}: labels are {' '.join(h.stages)}, the stager stages {' '.join(STAGE_SETS[self.stages])}: use stages='rodent3'")

    def _usual_method(self) -> str:
        from brainmu.sleep.combining import FEWEST_SUBJECTS

        if self.encoder is not None:
            return "encoder"
        return "combined" if self.n_subjects_ >= FEWEST_SUBJECTS else "boosting"

    def _fit_on_tables(self, recordings: list[Recording], hypnograms: list[Hypnogram], progress: Progress | None) -> None:
        from brainmu.sleep.features import epoch_table

        tables, codes, groups = [], [], []
        for i, (r, h) in enumerate(zip(recordings, hypnograms)):
            # Epochs are cut where the scorer cut them, however late the scoring begins.
            t = epoch_table(r, self.epoch, start=_aligned(h, r, self.epoch), running=self.causal)
            tables.append(t)
            codes.append(h.at(t.grid.start + (np.arange(t.grid.n) + 0.5) * self.epoch))
            groups.append(r.subject or r.id)
            if progress is not None:
                progress("features", (i + 1) / len(recordings))
        self.n_epochs_ = sum(int(((c >= 0) & ~t.empty).sum()) for c, t in zip(codes, tables))
        self.model_ = _table_model(self.method_)(self.stages, self.epoch, len(self.classes_), self.causal, self.duration, self.seed)
        self.model_.fit(tables, codes, groups, progress)

    def _fit_encoder(self, recordings: list[Recording], hypnograms: list[Hypnogram], labels: str | None, progress: Progress | None) -> None:
        from brainmu.train import finetune

        name = labels or next(k for k, v in recordings[0].labels.items() if isinstance(v, Hypnogram))
        self.model_ = finetune(
            recordings, task="stage", labels=name, encoder=self.encoder, stages=self.stages, epoch=self.epoch, causal=self.causal, mode=self.mode,
            config=self.config, seed=self.seed, progress=progress,
        )  # fmt: skip
        self.n_epochs_ = self.model_.n_epochs
        self.decoding_ = self._decoding_of_encoder(recordings, hypnograms, name)

    def _decoding_of_encoder(self, recordings: list[Recording], hypnograms: list[Hypnogram], name: str) -> Decoding | None:
        """Durations and temperature by the subjects that decided when to stop; None where no subject was held out."""
        from brainmu.sleep.decoding import Decoding

        held = self._subjects_held_out(recordings, name)
        groups = [r.subject or r.id for r in recordings]
        codes, probas = [], {}
        for i, (r, h, g) in enumerate(zip(recordings, hypnograms, groups)):
            codes.append(h.codes.astype(np.int64))
            if g in held:
                p, first = self._evidence(r, _aligned(h, r, self.epoch), None)
                codes[i] = h.at(first + (np.arange(len(p)) + 0.5) * self.epoch).astype(np.int64)
                probas[i] = p
        if not probas:
            return None
        return Decoding.fit(codes, probas, [c >= 0 for c in codes], groups, len(self.classes_), self.duration and not self.causal)

    def _subjects_held_out(self, recordings: list[Recording], name: str) -> set[str]:
        """Subjects that fine-tuning did not train on."""
        from brainmu.config import load_config
        from brainmu.train import FinetuneConfig
        from brainmu.train.labelled import hold_out, labelled

        c = self.config if isinstance(self.config, FinetuneConfig) else load_config(FinetuneConfig, self.config or {})
        training, held, _ = hold_out([labelled(self.model_, r, name) for r in recordings], c.stop_on, c.held_out, c.guard, self.seed)
        return {d.subject for d in held} - {d.subject for d in training}

    def _by_rules(self, recording: Recording, start: float | None, progress: Progress | None) -> Hypnogram:
        from brainmu.sleep.rules import stage_by_rules

        h = stage_by_rules(recording, self.epoch, start=start, progress=progress)
        if self.calibration_ is not None and self.calibration_.changes:
            assert h.proba is not None
            p = self.calibration_(self._table(recording, h.start).resized(len(h)), h.proba.astype(np.float64))
            h.codes, h.proba = _likeliest(p), p.astype(np.float32)
        return h

    def _probabilities(self, recording: Recording, start: float | None, progress: Progress | None) -> tuple[NDArray[np.float64], float]:
        """Decoded probabilities (epoch, stage) and where the first epoch begins, s."""
        p, first = self._evidence(recording, start, progress)
        if self.method_ in ("boosting", "combined"):
            return self.model_.decode(p), first
        return (p if self.decoding_ is None else self.decoding_(p)), first

    def _evidence(self, recording: Recording, start: float | None, progress: Progress | None) -> tuple[NDArray[np.float64], float]:
        """What is known of each epoch (epoch, stage) before decoding, with the calibration where there is one, and where the first begins, s."""
        if self.method_ in ("boosting", "combined"):
            table = self._table(recording, start, progress)
            p, first = self.model_.evidence(table), table.grid.start
            return (p if self.calibration_ is None else self.calibration_(table, p)), first
        if self.method_ == "rules":
            h = self._by_rules(recording, start, progress)
            assert h.proba is not None
            return h.proba.astype(np.float64), h.start
        found, first, _ = self.model_.predict_proba(recording, start=start, progress=progress)
        p = np.asarray(found, dtype=np.float64)
        if self.calibration_ is not None and self.calibration_.changes:
            p = self.calibration_(self._table(recording, float(first)).resized(len(p)), p)
        return p, float(first)

    def _table(self, recording: Recording, start: float | None, progress: Progress | None = None) -> Table:
        from brainmu.sleep.features import epoch_table

        return epoch_table(recording, self.epoch, start=start, running=self._running(), progress=progress)

    def _running(self) -> bool:
        """Whether features are on the scale of the past; causal stagers of earlier versions were fitted on that of the whole recording."""
        return self.method_ in ("boosting", "combined") and self.model_.running

    # -- storing ----------------------------------------------------------------------------------------------------
    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the stager as a folder: config.yaml and arrays (no pickles). Written whole or not at all.

        Raises
        ------
        OutputExistsError
            If the folder exists and `overwrite` is not given.
        """
        import yaml

        method = self._fitted()
        target = Path(folder)
        if target.exists() and not overwrite:
            raise OutputExistsError(f"{target}: exists already: pass overwrite=True to replace it, or choose another folder")
        if target.exists() and not (target / "config.yaml").is_file() and any(target.iterdir() if target.is_dir() else [target]):
            raise OutputExistsError(f"{target}: is not a saved stager, so it is not replaced: choose another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        params = self.get_params() | {"encoder": None if self.encoder is None else str(self.encoder)}
        config: dict[str, Any] = {"type": "SleepStager", "format": FORMAT, "method": method, "params": params}
        if method != "rules":
            config["fitted_on"] = {"subjects": self.n_subjects_, "epochs": self.n_epochs_, "names": list(self.subjects_)}
        if self.decoding_ is not None:
            config["decoding"] = self.decoding_.to_dict()
        if self.calibration_ is not None:
            config["calibration"] = self.calibration_.to_dict()
        if method in ("boosting", "combined"):
            settings, arrays = self.model_.to_parts()
            config[method] = settings
            np.savez_compressed(partial / "trees.npz", **arrays)
        elif method == "encoder":
            self.model_.save(partial / "encoder")
        (partial / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
        return target

    @classmethod
    def of(cls, model: StageModel) -> SleepStager:
        """A trained stage model as a stager: nothing to fit, and so nothing learnt about durations."""
        self = cls(stages=model.config.stages, epoch=model.config.epoch, method="encoder", causal=model.causal)
        self.method_, self.classes_, self.model_ = "encoder", STAGE_SETS[self.stages], model
        self.n_subjects_ = self.n_epochs_ = 0
        return self

    @classmethod
    def load(cls, folder: str | Path) -> SleepStager:
        """A stager from the folder that :meth:`save` wrote, or a stage model (``finetune``'s, or a packaged one by name) as a stager.

        Raises
        ------
        NotFoundError
            If there is no such folder.
        CheckpointError
            If it is no stager, of a later format, or damaged.
        """
        from brainmu.config import read_yaml
        from brainmu.models.checkpoint import find_checkpoint

        path = find_checkpoint(folder)
        config = read_yaml(path / "config.yaml")
        if config.get("type") == "stage_model":
            from brainmu.models import StageModel

            return cls.of(StageModel.load(path))
        if config.get("type") != "SleepStager":
            raise CheckpointError(f"{path}: is a {config.get('type')!r}, expected a SleepStager or a stage model: fit one with brainmu finetune")
        if config.get("format") != FORMAT:
            raise CheckpointError(f"{path}: is of format {config.get('format')!r}, this brainmu reads {FORMAT}: use the version that wrote it")
        try:
            self = cls(**config["params"])
            self.method_, self.classes_ = config["method"], STAGE_SETS[self.stages]
            if self.method_ != "rules":
                on = config["fitted_on"]
                self.n_subjects_, self.n_epochs_, self.subjects_ = on["subjects"], on["epochs"], tuple(on.get("names", ()))
            if "decoding" in config:
                from brainmu.sleep.decoding import Decoding

                self.decoding_ = Decoding.from_dict(config["decoding"])
            if "calibration" in config:
                from brainmu.sleep.few_labels import Calibration

                self.calibration_ = Calibration.from_dict(config["calibration"])
            if self.method_ in ("boosting", "combined"):
                with np.load(path / "trees.npz", allow_pickle=False) as stored:
                    self.model_ = _table_model(self.method_).from_parts(config[self.method_], dict(stored))
            elif self.method_ == "encoder":
                from brainmu.models import StageModel

                self.model_ = StageModel.load(path / "encoder")
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise CheckpointError(f"{path}: the saved stager is damaged ({type(error).__name__}: {error}): save it again") from error
        return self


def _aligned(h: Hypnogram, recording: Recording, epoch: float) -> float:
    """A start on the scorer's own grid at or before the first signal sample's epoch."""
    first = min((s.start for s in recording.signals.values() if s.n_samples), default=recording.start)
    return h.start + np.floor((first - h.start) / epoch + 1e-6) * epoch


def _warn_of_unnamed(recordings: list[Recording]) -> None:
    """Say that recordings without a subject count as a subject each, where there are several."""
    unnamed = [r.id for r in recordings if not r.subject]
    if len(unnamed) > 1:
        warnings.warn(f"{len(unnamed)} recordings name no subject ({', '.join(unnamed[:3])}{', …' if len(unnamed) > 3 else ''}): each counts as a subject of "
                      "its own, and held-out subjects decide how to decode: set Recording.subject", stacklevel=3)  # fmt: skip


def _table_model(method: str) -> Any:
    """The class that stages tables of features."""
    from brainmu.sleep.boosting import BoostedStager
    from brainmu.sleep.combining import CombinedStager

    return CombinedStager if method == "combined" else BoostedStager


def _likeliest(p: NDArray[np.float64]) -> NDArray[np.int8]:
    return np.where(np.isfinite(p).all(axis=1), np.nan_to_num(p).argmax(axis=1), UNSCORED).astype(np.int8)
