"""File systems, atomic writing and fingerprints of files."""
