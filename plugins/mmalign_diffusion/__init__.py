"""First-party diffusion and flow models: what there is, without importing torch."""
