"""Objectives made for diffusion and flow models, on denoising errors or on the steps of a sampler."""
