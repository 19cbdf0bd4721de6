"""The presets, as YAML."""
