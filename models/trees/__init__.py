"""LightGBM's trees in compiled form, shared by scoring (``forest``) and TreeSHAP (``models.attribution.treeshap``)."""
