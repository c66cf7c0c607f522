"""What a source corpus is: its shards, samples, captions and images, and why one is refused. No Spark."""
