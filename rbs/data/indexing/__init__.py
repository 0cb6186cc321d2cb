"""Indexing of folders: records, exclusions, pairs and splits for a manifest."""
