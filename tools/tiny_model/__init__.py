"""Makes the bundled model: data, vocabulary, training, 4-bit export, evaluation.

`python -m tools.tiny_model all` runs the steps in that order.
"""
