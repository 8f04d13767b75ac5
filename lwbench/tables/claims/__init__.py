"""Claims of documents as data, and their verdicts by counting and by runs."""
