"""How good the images of a network are, and how well its latents come apart: measured on features of images."""
