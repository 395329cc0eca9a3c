"""The embedded model: a denoiser of 16x16 digits that is small enough to ship and to align in a minute on a CPU.

`python -m mmalign_diffusion.digits train` makes what `assets/` holds: the denoiser and two digit classifiers, one for
rewards and one that only judges. Reading order: `data`, `networks`, `training`, `sampling`, `assets`, `__main__`.
"""
