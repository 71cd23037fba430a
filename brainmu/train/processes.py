"""Several processes: which one this is, Lightning's strategy by name, weights shared out among them, and what SLURM asks for."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from brainmu.config import suggest
from brainmu.errors import ConfigError

if TYPE_CHECKING:
    from lightning.pytorch.strategies import ModelParallelStrategy
    from torch.distributed.device_mesh import DeviceMesh

__all__ = [
    "RequeueSignal",
    "any_process",
    "average_over_processes",
    "check_strategy",
    "choose_strategy",
    "is_first_process",
    "shard",
    "slurm_plugins",
    "wait_for_all",
    "whole",
]

SHARDED = "fsdp"


def is_first_process() -> bool:
    """Whether this process is the one that claims folders, writes and prints, also before torch knows of the others (torchrun, srun, Lightning)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    if "LOCAL_RANK" in os.environ:
        return os.environ["LOCAL_RANK"] == "0" and os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")) == "0"
    return os.environ.get("SLURM_PROCID", "0") == "0"


def choose_strategy(name: str, processes: int) -> str | ModelParallelStrategy:
    """What to hand to Lightning.

    "auto" is one process, or DDP; "ddp" also looks for weights without a gradient, since a batch without a modality leaves
    some; "fsdp" shares out weights, gradients and the optimiser's state (torch's fully_shard; CPU with gloo, or GPUs).
    """
    if name == "fsdp":
        from lightning.pytorch.strategies import ModelParallelStrategy

        return ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)
    if name in ("auto", "ddp") and (processes > 1 or name == "ddp"):
        return "ddp_find_unused_parameters_true"
    return name


def check_strategy(name: str) -> None:
    """Refuse a strategy that there is none of, or that leaves parts of the weights in other files (ConfigError)."""
    from lightning.pytorch.strategies import StrategyRegistry

    known = ["auto", "ddp", "fsdp", *(s for s in StrategyRegistry.available_strategies() if not s.startswith(("deepspeed", "fsdp", "xla", "single")))]
    if name not in known:
        raise ConfigError(f"pretrain: strategy is {name!r}, expected one of {', '.join(dict.fromkeys(known))}{suggest(name, known)}")


def shard(module: nn.Module, blocks: list[nn.Module], mesh: DeviceMesh) -> None:
    """Share out the weights of a module among processes: `blocks` each by itself, then all the rest.

    Every block must run equally often in every process, whatever its batch: weights are gathered when a block begins.
    """
    from torch.distributed.fsdp import fully_shard

    module.register_forward_hook(_all_take_part)
    for m in [*blocks, module]:
        fully_shard(m, mesh=mesh)


def _all_take_part(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Give every weight a gradient, if only zero: processes whose batches lack a modality must still sum the same set."""
    idle = sum(p.flatten()[0] * 0 for p in module.parameters() if not _sharded(p))
    if isinstance(output, dict):
        return {k: v + idle if i == 0 else v for i, (k, v) in enumerate(output.items())}
    return output + idle


def _sharded(x: Tensor) -> bool:
    return hasattr(x, "full_tensor")


def whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that are shared out, gathered on the CPU of every process."""
    return {k: (v.full_tensor() if _sharded(v) else v).detach().cpu() for k, v in state.items()}  # type: ignore[operator]


def average_over_processes(values: Tensor) -> Tensor:
    """Mean of a tensor over all processes."""
    torch.distributed.all_reduce(values)
    return values / torch.distributed.get_world_size()


def any_process(world: int, device: torch.device, *flags: bool) -> list[bool]:
    """Whether each flag is set in any process, so that all of them save and stop at the same step."""
    if world == 1 or not torch.distributed.is_initialized():
        return list(flags)
    votes = torch.tensor([float(f) for f in flags], device=device)
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
    return [bool(v) for v in votes.tolist()]


def wait_for_all() -> None:
    """Return when every process has come here: then what the first one wrote is there."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def slurm_plugins(processes: int) -> list[Any]:
    """Lightning's own SLURM environment without its requeueing, which would save in the middle of a step; empty outside ``srun``."""
    from lightning.fabric.plugins.environments import SLURMEnvironment

    if not SLURMEnvironment.detect() or os.environ.get("SLURM_NTASKS") != str(processes):
        return []
    return [SLURMEnvironment(auto_requeue=False)]


class RequeueSignal:
    """SIGUSR1 as SLURM sends it some time before a job's end (``sbatch --signal=USR1@300``): remembered until a step is finished.

    Attributes
    ----------
    came : bool
    """

    def __init__(self) -> None:
        self.came = False
        self._before: Any = None

    def listen(self) -> None:
        """From now on, where this is a task of SLURM's and the main thread."""
        if "SLURM_JOB_ID" in os.environ and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGUSR1, self._note)

    def stop(self) -> None:
        """Give the signal back to whom it belonged."""
        if self._before is not None:
            signal.signal(signal.SIGUSR1, self._before)
            self._before = None

    def _note(self, number: int, frame: Any) -> None:
        self.came = True

    @staticmethod
    def requeue(run: Callable[..., Any] = subprocess.run) -> None:
        """Ask SLURM to run this job again."""
        array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
        name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
        try:
            done = run(["scontrol", "requeue", name], capture_output=True, text=True, check=False)
        except OSError as error:
            warnings.warn(f"pretraining is saved, but scontrol requeue {name} cannot be run ({error}): submit the job again", stacklevel=2)
            return
        if done.returncode:
            warnings.warn(f"pretraining is saved, but scontrol requeue {name} failed ({done.stderr.strip()}): submit the job again", stacklevel=2)
