"""The pipeline: its configuration, its stages, its runs and their reports."""
