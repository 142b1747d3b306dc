"""Spans: which of them a run takes, what is made of each, and how they become one set of examples."""
