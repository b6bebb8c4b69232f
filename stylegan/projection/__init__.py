"""Real pictures -> latents: search, distances, alignment, tuning."""
