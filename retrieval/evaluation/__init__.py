"""Benchmarks: the paper's protocols and a user's own data, measured with any metric of :mod:`retrieval.metrics`.

:mod:`~retrieval.evaluation.benchmarks.table` lists the benchmarks and turns a folder into triplets,
:mod:`~retrieval.evaluation.feature_store` encodes every image once, :mod:`~retrieval.evaluation.measures` scores, and
:mod:`~retrieval.evaluation.report` writes the results.
"""
