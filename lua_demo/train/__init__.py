"""Training of the embedded networks and of LUA for other latent spaces. Never imported by the app."""
