"""Weights from files, which a training may start from."""
