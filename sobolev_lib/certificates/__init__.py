"""What can be proved of a network over a whole box (Chapter 6).

verdicts - bounds, Lipschitz constants, signs, monotonicity, convexity: yes, no with a witness, or unknown.
"""
