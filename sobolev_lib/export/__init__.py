"""The network where it is needed: in another runtime, another language, a web page (Chapter 14).

recipe - what both exports write: the activations as formulas, the directions, the domain, the facts;
onnx - one ONNX graph of value, gradient and curvature, and networks read back from ONNX files;
source - one function of C, JavaScript or Python that depends on nothing.
"""
