"""The pipeline: its configuration, its stages, its runs and what is shown of them."""
