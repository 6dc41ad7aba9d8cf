"""Images inside other files: WebDataset tars, and tables of Parquet or Arrow. Nothing is unpacked."""
