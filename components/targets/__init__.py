"""Conversions of the model that are pushed beside it, each of which must keep the SavedModel's accuracy."""
