"""How good the model is while it is trained: benchmarks, held-out pairs, signs of trouble."""
