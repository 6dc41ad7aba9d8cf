"""Benchmarks: the paper's protocols and people's own data, measured with any metric of :mod:`retrieval.metrics`.

:mod:`~retrieval.evaluation.benchmarks.table` says which benchmarks there are and turns a folder into triplets,
:mod:`~retrieval.evaluation.feature_store` encodes every image once, :mod:`~retrieval.evaluation.measures` scores, and
:mod:`~retrieval.evaluation.report` writes what came out.
"""
