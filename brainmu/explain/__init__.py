"""What a model used, and what happens inside it when an event is taken away."""
