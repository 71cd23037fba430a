"""Figures by topic; each function takes brainmu's types or labelled arrays and returns a matplotlib Figure."""
