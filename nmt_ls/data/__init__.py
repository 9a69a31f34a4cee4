"""Sentences → subwords → tables: everything between files of text and arrays of ids."""
