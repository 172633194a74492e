"""Measuring the generator on a card: a model of random weights at full size, Kiln beside its peers, the ceilings."""
