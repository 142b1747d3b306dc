"""The doctor: whether this machine can run the pipeline, and what to do where it cannot."""
