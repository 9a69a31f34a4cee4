"""Studies: which runs a comparison needs, what came out, and a report of it."""
