"""A rat on a linear track, then at rest (nelpy example data, MIT): decoding error first, then what its rest replays.

Run: python pipelines/rat_linear_track/run.py FOLDER [--out replay.tsv]
FOLDER holds spikes.mat (MatClust) and trajectory.videoPositionTracking (Trodes), as published at
https://github.com/nelpy/example-data under linear-track.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import brainmu as bm
from brainmu.replay import cross_validated_error


def main() -> None:
    """Print the decoding error and what the rest replays; write the events if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    recording = bm.read(args.folder)
    print(recording)

    error = cross_validated_error(recording)
    print(f"\ndecoding error while running, {error['folds_used']} held-out folds, {error['n_units']} units, {error['n_bins']} bins of {error['bin_size']} s:")
    print(f"  state space {error['state_space']:.1f} {error['unit']}, memoryless {error['memoryless']:.1f}, chance {error['chance']:.1f}")

    found = bm.find_replay(recording)
    share = (found.p_value < 0.05).mean()
    print(f"\nrest ({found.epochs['rest_seconds']:.0f} s; {found.epochs['rest']}):")
    print(f"  {found.n_candidates} bursts ({found.rate:.0f} a minute; {found.surrogate_rate:.0f} with unit trains shifted), {found.n_scored} scored")
    print(f"  p < 0.05 in {share:.1%} (5 % expected by chance); at a false discovery rate of 0.1: {(found.q_value < 0.1).sum()}")
    print("  nulls: " + "; ".join(f"{k}: {v}" for k, v in found.nulls.items()))
    if args.out:
        found.to_bids(args.out)
        print(f"  written to {args.out}")


if __name__ == "__main__":
    main()
