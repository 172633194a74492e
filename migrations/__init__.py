"""Alembic's revisions of the database. Each is a fact of history: it imports no live code and is never edited."""
