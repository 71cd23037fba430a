"""Recordings to stores by Dask workers that SLURM starts as jobs: the files of samples of all recordings are shared out among them.

    pip install "brainmu[cluster]"
    python pipelines/slurm/cluster.py day1/ day2/ --out /shared/stores --workers 20 --partition short --account lab
    python pipelines/slurm/cluster.py day1/ --out stores --workers 2 --local       # the same without SLURM
    python pipelines/slurm/cluster.py --workers 20 --partition short --show        # the job script that would be submitted

Run it on a login node or in a small job: it reads the sources once for their checksums and keeps the journals, the workers do the rest. Sources and stores
must lie on a file system that all nodes share. If it is stopped, the same line goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import brainmu as bm
from brainmu.store import preprocess_many


def slurm(args: argparse.Namespace) -> Any:
    """A cluster whose workers are jobs of one process and one thread, each with the memory a shard needs."""
    from dask_jobqueue import SLURMCluster

    return SLURMCluster(
        queue=args.partition, account=args.account, cores=1, processes=1, memory=args.memory, walltime=args.walltime,
        # A worker ends in good time before SLURM ends its job; what it was making is given to another.
        worker_extra_args=["--lifetime", "50m", "--lifetime-stagger", "5m"] if args.walltime == "01:00:00" else [],
        log_directory="brainmu-logs", scheduler_options={"dashboard_address": None},
    )  # fmt: skip


def local(args: argparse.Namespace) -> Any:
    """The same with processes of this machine."""
    from distributed import LocalCluster

    return LocalCluster(n_workers=args.workers, threads_per_worker=1, processes=True, dashboard_address=None)


def main() -> int:
    """Parse, start the workers, preprocess, say what became of each source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--config", help="of preprocessing: a name or a YAML file")
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--memory", default="2GB", help="of a worker")
    parser.add_argument("--walltime", default="01:00:00", help="of a worker's job")
    parser.add_argument("--local", action="store_true", help="processes of this machine instead of SLURM's jobs")
    parser.add_argument("--show", action="store_true", help="print the job script of a worker and stop")
    args = parser.parse_args()
    if not args.show and (not args.sources or args.out is None):
        parser.error("give sources and --out")
    with (local if args.local else slurm)(args) as cluster:
        if args.show:
            print(cluster.job_script())
            return 0
        if not args.local:
            cluster.scale(jobs=args.workers)  # work begins with the first that SLURM starts
        outcomes = preprocess_many(args.sources, args.out, scheduler=cluster.scheduler_address, **({"config": args.config} if args.config else {}))
    for outcome in outcomes:
        print(f"{outcome.source}: {outcome.path or outcome.error}")
    print(f"brainmu {bm.__version__}: {sum(o.error is None for o in outcomes)} of {len(outcomes)} stores are complete")
    return int(any(o.error is not None for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
