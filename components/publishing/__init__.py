"""The serving directory: what is served, the check of a candidate, and its push."""
