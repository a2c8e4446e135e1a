"""The selector: a small calibrated model, trained on feedback, that predicts which explanation type helps most."""
