"""Unattended retraining on this machine: when to run, one run at a time, the results, and notifications."""
