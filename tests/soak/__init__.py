"""Random operations on an index under ``kill -9``, held against a plain model."""
