"""Inspection of a dataset before training: findings, advice, a proposed configuration and an HTML page."""
