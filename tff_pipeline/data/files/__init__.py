"""The user's own data, one format a module: `load` and `prepare` each.

  delimited, parquet, npz -> table -> splitting -> encoding -> DataSet
  image_folder                     -> splitting             -> DataSet
  tff_sqlite                                                -> DataSet, streamed

Nothing is ever unpickled. No cell of the data is ever shown: an error names
file, row and column, a client is a number. User ids stay in the reader.
"""
