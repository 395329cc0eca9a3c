"""What all token modalities share: packed scoring in chunks, sampling of groups."""
