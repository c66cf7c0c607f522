"""Tests of spark_jobs/indexing."""
