"""Which nodes matter, how the others go, and when to stop (Chapter 7).

This package joins the others: enclosures rank the nodes, labels judge what is left. Read in this order:

significance - the interval significance of each node: width of its interval times its largest adjoint;
rivals - other scores: magnitude, Taylor, variance, chance;
cut - how nodes, inputs and layers are removed and folded into what follows;
selection - nodes chosen for what they say of the others;
linearise - a layer replaced by an affine map, with a proved bound of the change;
judge - when held-out labels justify a smaller network;
shrink - cutting and training in turns, down to the smallest network that the labels justify;
grow - the other direction.
"""
