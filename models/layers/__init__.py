"""What GroupViT is built of: blocks, grouping, stems, projectors, and their CPU forms."""
