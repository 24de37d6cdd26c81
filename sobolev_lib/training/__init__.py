"""Sobolev training: a loss on values, gradients and Hessian-vector products, and its minimisers (Chapters 4 and 8).

Nothing here knows of intervals. Read in this order:

loss - the Sobolev loss and the balance of its parts (Chapter 8);
gauss_newton - least squares by Levenberg-Marquardt steps, from chunks of rows (Chapter 8);
checkpoint - the record of a run, and its file (Chapter 8);
fit - Adam, then least squares: the loop that trains (Chapters 4 and 8);
errors - errors against a truth, and against labels (Chapters 8 and 9);
uncertainty - error bars of value and derivatives, and a test for a network that is too small (Chapter 11).
"""
