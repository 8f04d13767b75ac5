"""The report: one HTML page of tables, studies and runs."""
