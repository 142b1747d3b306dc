"""Evaluates a model by slice and decides whether it is blessed."""
