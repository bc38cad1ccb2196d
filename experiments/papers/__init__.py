"""Reproductions of papers: experiments as data files, and their results."""
