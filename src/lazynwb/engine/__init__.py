"""From the catalog to columns: plan what to read, fetch it, decode it, assemble it."""
