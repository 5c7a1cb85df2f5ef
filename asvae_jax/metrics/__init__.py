"""Measures: arrays in, numbers out."""
