"""What a model used, and what happens inside it when an event is taken away."""

from brainmu.explain.attribution import attribute
from brainmu.explain.intervention import intervene

__all__ = ["attribute", "intervene"]
