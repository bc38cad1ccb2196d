"""Data sets, one per file, as `ClientData`; partitioners for pooled data."""
