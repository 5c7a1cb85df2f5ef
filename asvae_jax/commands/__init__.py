"""The commands of `python -m asvae_jax`, by what they start from."""
