"""Rows and cosines: certified nearest neighbours, the similarity join, clusters and results."""
