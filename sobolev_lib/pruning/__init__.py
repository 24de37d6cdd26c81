"""Which nodes matter, how the others go, and when to stop (Chapter 7).

This package joins the others: enclosures rank the nodes, labels judge what is left. Read in this order:

scores - how much each node matters: interval significance, and its rivals;
cut - how nodes, inputs and layers are removed and folded into what follows;
selection - nodes chosen for what they say of the others;
certified - as many nodes removed as can be proved to change little, without any labels (Chapter 10);
judge - which of several networks held-out labels justify;
shrink - one node less at a time, down to the smallest network that labels justify.
"""
