"""The command line: one small function a verb, each importing what it needs when it runs.

Nothing heavier than cyclopts is imported before a verb is chosen, so that help is quick.
"""

from __future__ import annotations

import sys

from brainmu._version import __version__

__all__ = ["VERBS", "main"]

VERBS = {
    "info": "What is in a file, folder, store or checkpoint; --verify checks it.",
    "preprocess": "Recordings in any format to aligned, checksummed stores.",
    "pretrain": "Pretrain the encoder on stores by masking.",
    "finetune": "Fit a sleep-stage head on labelled stores, from an encoder or from scratch.",
    "evaluate": "Score a stager on labelled stores: kappa, F1, n, chance, intervals by subject.",
    "stage": "A hypnogram with probabilities, by a stager or by rules.",
    "events": "Ripples, population bursts, spindles and slow waves.",
    "replay": "Candidate events, decoded content, significance; --cross-validate gives the decoding error.",
    "attribute": "What a head used: channel, unit, band, time.",
    "intervene": "Edit events inside the model, beside placebo edits.",
    "effect": "Does reactivation change sleep? Trials, hazards, marginal structural models.",
    "report": "The pictures and the provenance in one HTML file.",
    "fetch": "A public data set by name, checked against its archive's checksums.",
    "demo": "The whole chain on a synthetic recording, or on yours with --data.",
}
"""Verb and one line of help, in the order of the work."""

CONFIGURED = ("preprocess", "pretrain", "demo")
"""Verbs whose settings are more than their options: they read --config themselves. For the others a settings file holds their options."""


_TERMINATED = 143
"""Exit status of a process that SIGTERM ended, as shells have it: 128 + 15."""


def _app(verb: str | None):
    """The application; with a verb chosen, that verb's own docstring is its help, and no other module is imported."""
    from cyclopts import App

    app = App(
        name="brainmu", version=__version__, help_format="plaintext",
        help="From raw recordings of the brain to a tested causal claim.\n\nStart with: brainmu demo --quick; then brainmu VERB --help.",
        suppress_keyboard_interrupt=False,  # main() says what an interrupt leaves behind
        help_epilogue="Exit status: 0 done, 1 the work failed, 2 wrong usage. Results go to stdout, progress to stderr; --json prints one JSON object.",
    )  # fmt: skip
    if verb is not None:
        app.command(f"brainmu.cli.{verb}:{verb}", name=verb)
        return app
    for place, (name, line) in enumerate(VERBS.items()):
        app.command(f"brainmu.cli.{name}:{name}", name=name, help=line, sort_key=place)
    return app


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 the work failed, 2 wrong usage)."""
    from cyclopts import CycloptsError

    tokens = sys.argv[1:] if argv is None else argv
    if tokens and not tokens[0].startswith("-") and tokens[0] not in VERBS:
        from brainmu.config import suggest

        return _fail(f"no verb {tokens[0]!r}{suggest(tokens[0], VERBS)}; verbs are {', '.join(VERBS)}", 2)
    try:
        if tokens and tokens[0] in VERBS and tokens[0] not in CONFIGURED:
            tokens = _with_settings(tokens)
        result = _app(tokens[0] if tokens and tokens[0] in VERBS else None)(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()).rstrip(".") + f": see brainmu {_verb(tokens)}--help", 2)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished is kept where the verb resumes (preprocess, fetch, pretrain --resume), others begin anew", 130)
    except SystemExit as stop:
        if stop.code == _TERMINATED:
            return _fail("terminated; pretrain --resume goes on from the last checkpoint", _TERMINATED)
        raise
    except BrokenPipeError:
        # The reader of stdout went away (| head): nothing to report, and nothing more to flush.
        sys.stderr.close()
        return 0
    except Exception as error:
        if "--debug" in tokens:
            raise
        return _fail(*_explain(error))


def _with_settings(tokens: list[str]) -> list[str]:
    """The command line with the options of its --config file added; what is given on the line counts."""
    place = next((k for k, t in enumerate(tokens) if t == "--config" or t.startswith("--config=")), None)
    if place is None or (tokens[place] == "--config" and place + 1 == len(tokens)):
        return tokens
    import importlib
    import inspect

    from brainmu.cli.console import Common
    from brainmu.config import read_settings, suggest
    from brainmu.errors import ConfigError

    verb = tokens[0]
    together = "=" in tokens[place]
    name = tokens[place].partition("=")[2] if together else tokens[place + 1]
    rest = tokens[:place] + tokens[place + (1 if together else 2) :]
    function = getattr(importlib.import_module(f"brainmu.cli.{verb}"), verb)
    options = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "common"]
    known = [*options, *(f for f in Common.__dataclass_fields__ if f != "config")]
    added: list[str] = []
    for key, value in read_settings(name).items():
        if key not in known:
            raise ConfigError(f"{name}: unknown key {key!r}{suggest(key, known)}; options of {verb} are {', '.join(known)}")
        flag = f"--{key.strip('_').replace('_', '-')}"
        if value is None or value is False or any(t == flag or t.startswith(flag + "=") for t in rest):
            continue
        added += [flag] if value is True else [t for v in (value if isinstance(value, list) else [value]) for t in (flag, str(v))]
    return rest + added


def _verb(tokens: list[str]) -> str:
    return f"{tokens[0]} " if tokens and tokens[0] in VERBS else ""


def _explain(error: Exception) -> tuple[str, int]:
    """One line for a person, and the exit status."""
    import errno

    from brainmu.errors import BrainmuError, UsageError

    if isinstance(error, UsageError):
        return str(error), 2
    if isinstance(error, BrainmuError):
        return str(error), 1
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'the output'}: the disk is full: free some space or choose another --out; nothing half-written was left in place", 1
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied: choose another path or change its rights", 1
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{error.filename}: the file system is read-only: choose another --out", 1
    if isinstance(error, MemoryError):
        return "out of memory: process fewer recordings at a time or a shorter one", 1
    line = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {line}. This is a fault of brainmu: run again with --debug and report what it prints", 1


def _fail(message: str, status: int) -> int:
    print(f"brainmu: {message}", file=sys.stderr)
    return status
