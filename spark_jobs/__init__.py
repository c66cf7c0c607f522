"""The jobs, one a file: what ``spark-submit`` takes."""
