"""ML Metadata: the store, its backups, and lineage."""
