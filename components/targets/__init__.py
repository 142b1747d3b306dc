"""Conversions of the model that are pushed beside it, each held to the SavedModel's accuracy."""
