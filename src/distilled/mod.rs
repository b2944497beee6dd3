//! The distilled set on disk: PNG tree, safetensors file, manifest, card and grid.
