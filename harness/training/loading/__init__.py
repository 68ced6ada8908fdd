"""Where a rank's batches come from, and what becomes of images that can't be used."""
