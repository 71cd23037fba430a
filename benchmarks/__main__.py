"""Run every benchmark of this folder and print their tables.

Usage: python -m benchmarks [NAME ...] [--quick]

Each ``bench_<name>.py`` runs alone too (``python benchmarks/bench_store.py --quick``) and prints one table. Peers that are
not installed are named as absent, never guessed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    names = sorted(p.stem.removeprefix("bench_") for p in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=f"some of {', '.join(names)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="short runs: the ratios are rougher")
    args = parser.parse_args()
    for name in args.names:
        if name not in names:
            parser.error(f"no benchmark {name!r}; there are {', '.join(names)}")
    failed = []
    for name in args.names or names:
        print(f"\n=== {name}", flush=True)
        # A process each, so that one benchmark's memory and imports do not colour the next.
        code = subprocess.run([sys.executable, str(HERE / f"bench_{name}.py"), *(["--quick"] if args.quick else [])], check=False).returncode
        if code:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
