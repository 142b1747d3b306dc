"""A look at a dataset before anything is trained on it: findings, advice, a proposed configuration, a page."""
