"""Bringing a model's files here: what is published, from where, and whether each byte is right."""
