"""Parts of `bench scaling`: its worker processes, what they send each other, predictions."""
