"""Methods against each other on one corpus: caption alone, the GroupViT baseline, archives by two rankings, the truth."""
