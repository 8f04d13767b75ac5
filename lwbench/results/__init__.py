"""Tables, statistics, pictures: everything made from run directories and published tables, without torch."""
