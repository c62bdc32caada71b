"""/api/v1: what programs may ask and do, each with a token of its own. docs/api.md shows it with curl."""
