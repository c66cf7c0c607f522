"""Horovod training of GroupViT, reading through Petastorm."""
