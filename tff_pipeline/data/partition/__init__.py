"""Partitioners: pooled examples -> clients. Seeded; every example used once.

`dealing` holds the table of partitioners; `sizes` deals without looking at
the examples, `labels` by their labels, and `features` changes what they look
like.
"""

from tff_pipeline.data.partition.dealing import deal

__all__ = ['deal']
