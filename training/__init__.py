"""Horovod training of GroupViT, reading through Petastorm."""

from configs.processors import let_threads_sleep

let_threads_sleep()  # before any module of this room loads torch
