"""Does one thing drive another? Randomised trials, hazards, weighting, negative controls and sensitivity, each ending in an Effect."""

from brainmu.causal.effect import DESIGNS, estimate_effect

__all__ = ["DESIGNS", "estimate_effect"]
