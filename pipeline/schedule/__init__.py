"""Retraining on this machine that can be left alone: when to run, one run at a time, what came of it, who is told."""
