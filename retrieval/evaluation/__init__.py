"""Benchmarks: the paper's protocols and people's own data, measured with any metric of :mod:`retrieval.metrics`.

:mod:`~retrieval.evaluation.benches` says which benchmarks there are and turns a folder into triplets,
:mod:`~retrieval.evaluation.store` encodes every image once, :mod:`~retrieval.evaluation.measure` scores, and
:mod:`~retrieval.evaluation.report` writes what came out.
"""
