"""Which of the explanations that hold helps this user most: a small calibrated model, trained on feedback."""
