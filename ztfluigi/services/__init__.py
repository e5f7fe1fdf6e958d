"""Doors to the outside: database, catalogues, archive."""
