"""lwbench: what a lightweight image classifier costs, how well it does, and whether the difference
is real.
"""

__version__ = "0.1.0"
