"""Trainer, Tuner and the warm start."""
