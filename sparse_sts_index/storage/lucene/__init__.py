"""Lucene and Java: the only modules that know pyjnius."""
