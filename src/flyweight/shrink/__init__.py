"""Importance, shapes and slicing: from a big network to a smaller one of the same family."""
