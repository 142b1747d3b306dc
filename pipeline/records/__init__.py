"""The results of a run: executions, summary and status."""
