"""The doctor: whether this machine can run the pipeline, and what to do if it cannot."""
