"""Decoding: search over next-token distributions, translation of text, scoring of given text."""
