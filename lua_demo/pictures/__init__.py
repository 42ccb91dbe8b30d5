"""Images and latents as files and arrays, and what is measured on them."""
