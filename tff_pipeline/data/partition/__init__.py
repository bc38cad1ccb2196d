"""Partitioners: pooled examples -> clients. Seeded; every example used once.

`dealing` holds the table of partitioners; `sizes` deals without looking at
the examples, `labels` by their labels, and `features` changes what they look
like; `groups` puts whole clients together instead.
"""

from tff_pipeline.data.partition.dealing import deal
from tff_pipeline.data.partition.groups import group

__all__ = ['deal', 'group']
