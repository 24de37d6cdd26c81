"""The stochastic model and its labels: what the network is to learn (Chapters 1 to 3).

A model says how the state moves, a scheme how one step is taken, a payoff what the paths are worth, and `label`
averages value, gradient and Hessian-vector products over paths. Nothing here knows of networks or intervals. Read in
this order:

noise - normals that depend on seed and row number only, however the work is cut (Chapter 1);
models - drift and diffusion: Bachelier, Black-Scholes, Heston, one's own (Chapter 1);
schemes - one step of a model: exact, Euler-Maruyama, Milstein, full truncation (Chapter 1);
payoffs - what a path is worth, and the smoothing that makes it differentiable (Chapter 2);
closed_form - prices and Greeks by formula, to check against (Chapter 2);
average - means and standard errors over paths, the same to the last bit in any pieces (Chapter 3);
samples - the container of labels, and its file (Chapter 3);
parameters - numbers of model and payoff, and the horizon, that stand in columns of the inputs (Chapter 3);
pilot - a look before the work: dependent rows, jumps and kinks of one's own payoff (Chapter 3);
directions - in which directions second derivatives are asked for (Chapters 3 and 8);
labels - values, pathwise gradients and Hessian-vector products of a model and a payoff (Chapter 3);
case_study - the Gaussian basket option of the paper (Chapters 0 and 9).
"""
