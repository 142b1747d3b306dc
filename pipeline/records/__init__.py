"""What a run came to: executions, summary, status, dry run."""
