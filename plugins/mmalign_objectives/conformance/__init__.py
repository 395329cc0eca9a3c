"""Golden-vector cases of the objectives; `index` lists them and imports no torch."""
