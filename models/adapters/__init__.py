"""Session models of other people, written again in PyTorch so that they run on whole batches of any length.

Each file reads the weights of one family of models and gives an :class:`~models.adapters.adapted.Adapted`, which
:mod:`models.adapters.export` turns into the ONNX graph of a bundle. Everything here needs PyTorch (the extra
``train``) and nothing here is imported by the service.
"""
