"""The surrogate: a multilayer perceptron that carries its scaling and differentiates itself (Chapter 4).

Read in this order:

activations - the functions between the layers, with three derivatives each;
twin - value, gradient and Hessian-vector products in one explicit pass forward and back;
scaling - raw units and the domain, and passes through a scaled network;
layers - layers from elsewhere, checked;
surrogate - the network in raw units: made, copied, evaluated, saved.
"""
