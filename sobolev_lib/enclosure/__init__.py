"""Intervals and zonotopes, and both through a network, forward and back (Chapters 5 and 6).

What is computed here holds for every point of a box, rounding included. Nothing here knows of models or training. Read
in this order:

rounding - how a bound is moved outward far enough, without rounding modes (Chapter 5);
interval - the data type, its arithmetic and its functions, by the names of IEEE 1788 (Chapter 5);
jets - activations and their derivatives over intervals (Chapter 5);
affine - matrix times interval (Chapter 5);
approximation - a line for an activation over an interval, and its largest error (Chapter 6);
zonotope - sets that remember the symbols that they depend on (Chapter 6);
sweeps - one sweep forward and back through a network in either domain (Chapter 6);
adjoints - `enclose`: ranges of value, gradient and curvature over a box (Chapter 6).
"""
