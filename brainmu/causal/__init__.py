"""Does one thing drive another? Trials, hazards, weighting, matching, coupling, controls and sensitivity, each ending in an Effect; power; preregistration."""

from brainmu.causal.arousal import arousal_threshold
from brainmu.causal.effect import DESIGNS, estimate_effect
from brainmu.causal.factorial import factorial
from brainmu.causal.mediation import mediation
from brainmu.causal.preregistration import preregister
from brainmu.causal.prospective import power
from brainmu.causal.tagged import tagged_events

__all__ = ["DESIGNS", "arousal_threshold", "estimate_effect", "factorial", "mediation", "power", "preregister", "tagged_events"]
