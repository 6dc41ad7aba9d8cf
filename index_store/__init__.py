"""Bytes on disk: JSON, Parquet, npy, Zarr and FAISS. Knows neither torch nor the name of any model."""
