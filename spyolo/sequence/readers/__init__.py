"""Readers of the official file formats of the sequence data sets: each knows one format and says clearly what is wrong with a file."""
