"""Tables, statistics, pictures.

Everything made from run directories and published tables, without torch.
"""
