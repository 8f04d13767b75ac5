"""Plans of many runs, and how they are run: local processes."""
