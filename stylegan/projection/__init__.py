"""Real photographs -> latents: search, distances, alignment, tuning."""
