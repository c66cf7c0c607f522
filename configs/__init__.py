"""Typed configuration of every job, and the user-error type."""
