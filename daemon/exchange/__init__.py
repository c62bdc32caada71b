"""Lists that come from elsewhere and go elsewhere: import, export, scrub."""
