"""The curated schema, and the check of the data against it."""
