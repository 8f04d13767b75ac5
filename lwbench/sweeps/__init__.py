"""Plans of many runs, and what makes them: local processes, SLURM, Ray."""
