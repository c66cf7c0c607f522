"""What Concept Curation computes, on arrays: no Spark, no table paths."""
