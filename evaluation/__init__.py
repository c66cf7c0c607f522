"""Zero-shot segmentation on the benchmarks and on one's own photos."""

from configs.processors import let_threads_sleep

let_threads_sleep()  # before any module of this room loads torch
