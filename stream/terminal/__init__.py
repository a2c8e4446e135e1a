"""How a person reads explanations in a terminal."""
