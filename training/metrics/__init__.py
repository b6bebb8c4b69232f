"""How good the pictures of a network are, and how well its latents come apart: measured on features of pictures."""
