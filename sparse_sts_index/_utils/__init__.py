"""Helpers without knowledge of sentences or vectors: files, JSON, pipelines, the hub, forks."""
