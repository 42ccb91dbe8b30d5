"""What the demo can run, as tables: base models, latent spaces, pipelines, prompts, methods. Data only, no torch."""
