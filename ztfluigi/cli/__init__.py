"""The `ztf` command."""
