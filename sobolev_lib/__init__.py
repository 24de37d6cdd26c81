"""Sobolev pruning: small neural surrogates of stochastic models that keep their derivatives."""
