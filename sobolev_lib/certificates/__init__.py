"""What can be proved of a network over a whole box (Chapters 6 and 10).

references - formulas with enclosures (Chapter 10);
coordinates - branch and bound in the coordinates that the first layer sees (Chapter 10);
verdicts - bounds, Lipschitz constants, signs, monotonicity, convexity: yes, no with a witness, or unknown (Chapter 6);
error_bound - how far a network is from a formula or another network, at most (Chapter 10);
repair - training with counterexamples until a property is proved (Chapter 10).
"""
