"""Statistics of a variant at a target, one file each, as columns of the comparison.

Enters a function ``(baseline, variant, reference, analysis) -> {column: value}`` of two curves.
"""
