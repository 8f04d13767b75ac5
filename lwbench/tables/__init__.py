"""Published tables and users' own, filled with what was counted and measured."""
