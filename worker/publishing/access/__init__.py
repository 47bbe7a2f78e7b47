"""How targets are reached: secrets by their places, addresses without secrets, HTTP errors."""
