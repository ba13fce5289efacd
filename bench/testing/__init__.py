"""What any arm is tested by, outside packages' too. Enters the conformance suite and its option.

``pytest --pyargs bench.testing --arm NAME`` runs it.
"""
