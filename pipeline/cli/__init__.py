"""The commands of both runners."""
