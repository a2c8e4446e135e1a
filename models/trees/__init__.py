"""LightGBM's trees in compiled form: what scoring (``forest``) and TreeSHAP (``models.attribution.treeshap``) share."""
