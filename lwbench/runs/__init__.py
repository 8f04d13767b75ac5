"""Run directories: identity, records, provenance, resumption, and the caches on disk."""
