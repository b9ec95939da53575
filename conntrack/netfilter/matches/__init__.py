"""Matches, one file each: found by `rules.registry`, no list of them anywhere.

What a file holds is told in `rules.registry`; `mark` is the shortest example.
"""
