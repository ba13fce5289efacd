"""Masked Token Optimization: a reconstruction that wraps any mask-token method."""
