"""Times what saves time in training diffusion models; writes benchmarks/results/diffusion.json and docs/diffusion.md.

Kept encodings against encoding every step, on whole runs, which must end with the same weights; and chosen and rejected
images in one pass of policy and reference against passes of their own. The network is a random one in the shape of
Stable Diffusion whose autoencoder costs as much, relative to the denoiser, as that of Stable Diffusion 1.5.

python benchmarks/diffusion.py [--steps 6] [--pairs 8] [--size 32]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from mmalign_diffusion.config import FamilyComponent
from mmalign_diffusion.modality import Diffusion
from mmalign_diffusion.testing_pipelines import build_tiny_pipeline
from PIL import Image
from rows import describe_machine, load_rows, merge_timings, save_rows, today
from workloads import ROOT, write_rows

import mmalign
from mmalign import EncodedResponse, LoRAParameters, Model, Networks, Policy
from mmalign.config import RunConfig
from mmalign.metrics_log import read_metrics

RESULTS = ROOT / "benchmarks/results/diffusion.json"
PAGE = ROOT / "docs/diffusion.md"
BEGIN, END = "<!-- table: written by benchmarks/diffusion.py -->", "<!-- end of the table -->"

WIDTHS = (64, 76)
"""Channels: an encoding then costs 1.4 forward passes of the denoiser, as in Stable Diffusion 1.5 at 512 pixels."""
