"""Directions in latent space: finding them, keeping them, moving along them."""
